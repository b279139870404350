"""The store of the service: a database with what clients have sent, to be served and to be trained on."""

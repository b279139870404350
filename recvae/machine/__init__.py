"""The machine or container that this process runs in: its cores and their time, and the threads that use them."""

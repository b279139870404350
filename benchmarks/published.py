"""Figures that others published on the splits of the quality tables, with their sources, as Markdown below a table."""


def _table(heading: str, metrics: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> str:
    lines = [("model", *metrics, "source"), ("---", *["---:"] * len(metrics), "---"), *rows]
    return f"\n{heading}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


_LISTS = ("recall_full@20", "ndcg@20")
_ON_TEST = "Published, most of them with settings chosen on the test interactions:"
_BARS = "BARS leaderboard gowalla_m1"
_AUTHORS = "the authors' code or tables"

FIGURES = {
    "gowalla": _table(
        _ON_TEST,
        _LISTS,
        (
            ("ItemCF", ".1570", ".1214", _BARS),
            ("Mult-VAE", ".1641", ".1335", _BARS),
            ("SLIM", ".1699", ".1382", _BARS),
            ("EASE", ".1765", ".1467", _BARS),
            ("LightGCN", ".1830", ".1554", _BARS),
            ("GF-CF", ".1849", ".1518", _BARS),
            ("UltraGCN", ".1862", ".1580", _BARS),
            ("SimpleX", ".1872", ".1557", _BARS),
            ("SGFCF", ".1898", ".1566", _AUTHORS),
            ("PGSP", ".1917", ".1606", _AUTHORS),
            ("BSPM-EM", ".1920", ".1597", _AUTHORS),
            ("ChebyCF", ".1941", ".1616", _AUTHORS),
        ),
    ),
    "yelp2018": _table(
        _ON_TEST,
        _LISTS,
        (
            ("EASE", ".0657", ".0552", _AUTHORS),
            ("LightGCN", ".0639", ".0525", "SELFRec's leaderboard"),
            ("Turbo-CF", ".0693", ".0574", _AUTHORS),
            ("BSPM", ".0720", ".0593", _AUTHORS),
            ("XSimGCL", ".0723", ".0604", _AUTHORS),
        ),
    ),
    "ml-20m": _table(
        "Published, strong generalization (same split where the source uses Liang et al.'s files):",
        ("recall@20", "recall@50", "ndcg@100"),
        (
            ("Mult-DAE", ".3877", ".5243", ".4200", "vae_cf notebook"),
            ("Mult-VAE", ".3954 ±.0027", ".5354 ±.0028", ".4259 ±.0021", "vae_cf notebook"),
            ("EASE", ".391", ".521", ".420", "VASP, table III"),
            ("higher-order EASE", ".400", ".530", ".4292", "Steck and Liang, RecSys 2021"),
            ("RecVAE", ".414", ".553", ".442", "VASP, table III"),
            ("H+Vamp, gated", ".4131", ".5511", ".4452", "paperswithcode"),
            ("VASP, on a split of its own", ".414", ".552", ".448", "VASP notebook"),
        ),
    ),
}

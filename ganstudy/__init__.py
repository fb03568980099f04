"""ganstudy: distributed hyper-parameter sweeps and stability studies for GANs."""

from ganstudy.records import Results, load_results

__all__ = ["Results", "load_results"]
__version__ = "0.1.0"

"""The zoo: one cell a file, the paper in its docstring."""

from .gilr import gilr
from .gilr_lstm import gilr_lstm, gilr_lstm_delay0
from .linear_scan import linear_scan, linear_scan_reverse
from .lstm import lstm
from .qrnn import qrnn, qrnn_f, qrnn_fo, qrnn_ifo
from .sru import sru

__all__ = ["gilr", "gilr_lstm", "gilr_lstm_delay0", "linear_scan", "linear_scan_reverse", "lstm", "qrnn", "qrnn_f", "qrnn_fo",
           "qrnn_ifo", "sru"]

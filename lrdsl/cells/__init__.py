"""The zoo: one cell a file, the paper in its docstring."""

from .gilr import gilr
from .gilr_gru import gilr_gru
from .gilr_lstm import gilr_lstm, gilr_lstm_delay0
from .gru import gru
from .linear_scan import linear_scan, linear_scan_reverse
from .lstm import lstm
from .qrnn import qrnn, qrnn_f, qrnn_fo, qrnn_ifo
from .sru import sru
from .window import window

__all__ = ["gilr", "gilr_gru", "gilr_lstm", "gilr_lstm_delay0", "gru", "linear_scan", "linear_scan_reverse", "lstm", "qrnn",
           "qrnn_f", "qrnn_fo", "qrnn_ifo", "sru", "window"]

"""The zoo: one cell a file, the paper in its docstring."""

from .diag_gru import diag_gru
from .diag_lstm import diag_lstm
from .gilr import gilr
from .gilr_gru import gilr_gru
from .gilr_lstm import gilr_lstm, gilr_lstm_delay0
from .gru import gru
from .indrnn import indrnn
from .linear_scan import linear_scan, linear_scan_reverse
from .lstm import lstm
from .qrnn import qrnn, qrnn_f, qrnn_fo, qrnn_ifo
from .sru import sru
from .sru_v2 import sru_v2
from .window import window

__all__ = ["diag_gru", "diag_lstm", "gilr", "gilr_gru", "gilr_lstm", "gilr_lstm_delay0", "gru", "indrnn", "linear_scan",
           "linear_scan_reverse", "lstm", "qrnn", "qrnn_f", "qrnn_fo", "qrnn_ifo", "sru", "sru_v2", "window"]

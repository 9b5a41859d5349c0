"""The zoo: one cell a file, the paper in its docstring. Where a size, a number or a rule is to choose, a function makes it."""

from .biquad import biquad
from .cummax import cummax
from .cumprod import cumprod
from .cumsum import cumsum
from .damped_ema import damped_ema
from .discounted_return import discounted_return
from .ema import ema
from .gae import gae
from .gilr import gilr
from .gilr_gru import gilr_gru
from .gilr_lstm import gilr_lstm, gilr_lstm_delay0
from .gru import gru
from .hgrn import hgrn
from .holt_winters import holt_winters
from .kalman import kalman
from .lambda_return import lambda_return
from .lfilter import lfilter
from .linear_scan import linear_scan, linear_scan_reverse
from .linoss import linoss
from .logcumsumexp import logcumsumexp
from .lru import lru
from .lstm import lstm
from .mamba_s6 import mamba_s6
from .mega_ema import mega_ema
from .mingru import mingru
from .minlstm import minlstm
from .mlstm_normaliser import mlstm_normaliser
from .qrnn import qrnn, qrnn_f, qrnn_fo, qrnn_ifo
from .qrnn_zoneout import qrnn_zoneout
from .rglru import rglru
from .rotation import rotation
from .rwkv4_wkv import rwkv4_wkv
from .s5 import s5
from .slstm import slstm
from .sru import sru
from .t_gru import t_gru
from .t_lstm import t_lstm
from .t_rnn import t_rnn
from .vtrace import vtrace
from .window import window

__all__ = ["biquad", "cummax", "cumprod", "cumsum", "damped_ema", "discounted_return", "ema", "gae", "gilr", "gilr_gru",
           "gilr_lstm", "gilr_lstm_delay0", "gru", "hgrn", "holt_winters", "kalman", "lambda_return", "lfilter", "linear_scan",
           "linear_scan_reverse", "linoss", "logcumsumexp", "lru", "lstm", "mamba_s6", "mega_ema", "mingru", "minlstm",
           "mlstm_normaliser", "qrnn", "qrnn_f", "qrnn_fo", "qrnn_ifo", "qrnn_zoneout", "rglru", "rotation", "rwkv4_wkv",
           "s5", "slstm", "sru", "t_gru", "t_lstm", "t_rnn", "vtrace", "window"]

"""`lr.surrogate` asked for what it cannot do."""

import lrdsl as lr
from lrdsl.cells import gilr, linear_scan, lstm
from lrdsl.errors import BadDeclaration, NotBuilt, UnknownName, UnusedName

from . import Cases

mistake = Cases({})


@mistake(UnknownName)
def an_unknown_state():
    lr.surrogate(lstm, s=gilr)  # <-


@mistake(UnknownName)
def an_input_as_the_state():
    lr.surrogate(lstm, x=gilr)  # <-


@mistake(UnknownName)
def inputs_that_do_not_bind():
    lr.surrogate(lstm, h=linear_scan)  # <-


@mistake(UnusedName)
def a_state_that_no_map_reads():
    lr.surrogate(lstm, c=gilr)  # <-


@mistake(UnknownName, UnusedName)
def two_mistakes():
    lr.surrogate(lstm, s=gilr, c=gilr)  # <-


@mistake(BadDeclaration)
def a_delay_of_two():
    lr.surrogate(lstm, h=gilr, delay=2)  # <-


@mistake(BadDeclaration)
def no_state():
    lr.surrogate(lstm)  # <-


@mistake(BadDeclaration)
def not_of_a_cell():
    lr.surrogate("lstm", h=gilr)  # <-


@mistake(NotBuilt)
def not_by_a_cell():
    lr.surrogate(lstm, h="gilr")  # <-

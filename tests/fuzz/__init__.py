"""Random cells: grown from a grammar, compared on every backend with what their own text says, and broken on purpose.

    forms      the table of forms, and which features of cells go together
    grammar    a cell's text, from that table; wrong: the same with one mistake
    written    a cell as text, and which way its states run
    meaning    what a text says: its body run on numbers, step by step
    problems   tensors for a cell, and how it is called; rewrites: other cells that must say the same
    kernels    many Programs in one call of the compiler
    compare    values and derivatives of all of these, and how far apart they may be
    __main__   `python -m tests.fuzz`: as many cells as there is time for, each failure a file that shows it again
"""

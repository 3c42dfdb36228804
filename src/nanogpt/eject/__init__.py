"""One file with exactly one recipe in it, made from the source of the package.

In the order to read it:

    program     one run on one process: what the file is made from
    eject       the passes, one after another, until nothing changes
    tree        Python as a tree with comments, and back to text
    world       the definitions: what type an expression has, what a call calls
    settings    which settings become constants
    collect     the definitions that are reached, with settings put in
    bind        what is always the same: parameters, attributes, fields of records
    fold        conditions that are known, variants that are chosen, arithmetic with nothing
    inline      functions that are put where they are called, names that stand for one value
    write       the text of the file
"""

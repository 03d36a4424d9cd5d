"""An interpreter of Core ML's ML programs, in numpy: what runs an `.mlpackage` where there is no Mac.

package       reads the folder: Manifest.json, the program's protobuf, weight.bin
program       opens a package and runs its functions
compiling     makes a list of instructions of a function, once
slots         where values lie while it runs, states above all
instructions  one operator on some values, and how it is run
pointwise, tensors, matrix, packed   the operators, under the names of their inputs in MIL: those that language models
              use, ours and those that coremltools converts. Another is refused by its name

It follows the format's specification. Apple's runtime may fuse, reorder and round otherwise: agreement with this
interpreter is agreement with the specification, not with a device.
"""

"""An interpreter of Core ML's ML programs, in numpy: what runs an `.mlpackage` where there is no Mac.

package   reads the folder: Manifest.json, the program's protobuf, weight.bin
program   compiles each function once to a list of steps, and runs it
pointwise, tensors, matrix, packed   the operators, under the names of their inputs in MIL

It follows the format's specification. Apple's runtime may fuse, reorder and round otherwise: agreement with this
interpreter is agreement with the specification, not with a device.
"""

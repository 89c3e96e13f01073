// Tests of everything that speaks to QEMU have a simulated one at hand.
@_exported public import QEMUJSON
@_exported public import Simulator

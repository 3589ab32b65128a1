"""Where SVM's structures lie in the VMM's region, in the place of the translator's hash table, which no hardware VMM has."""

from .. import layout

VMCB = layout.HASH
HOST_SAVE = layout.HASH + 0x1000  # the page that VM_HSAVE_PA names
HOST_VMCB = layout.HASH + 0x2000  # for VMSAVE and VMLOAD of the host alone
IOPM = layout.HASH + 0x4000
MSRPM = layout.HASH + 0x8000

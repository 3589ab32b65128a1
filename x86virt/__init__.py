"""x86virt: an x86 machine simulated cycle by cycle, whose hypervisor is a plug-in."""

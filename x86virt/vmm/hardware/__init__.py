"""VMMs that use a processor's virtualization extension: VT-x (VMCS) or SVM (VMCB)."""

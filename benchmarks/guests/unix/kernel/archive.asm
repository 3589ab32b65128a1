; The RAM disk, as it was built.

        section .ramdisk progbits alloc noexec nowrite align=4
        global  ram_disk, ram_disk_end
ram_disk:
        incbin  RAM_DISK
ram_disk_end:

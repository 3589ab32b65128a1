; The end of the image: places that programs know by address.

        times   0xE05B - ($ - $$) db 0xFF
        jmp     reset                       ; where the first PC's BIOS began

        times   0xFF53 - ($ - $$) db 0xFF
dummy_interrupt:                            ; a handler that does nothing
        iret

        times   0xFFF0 - ($ - $$) db 0xFF
reset_vector:                               ; the first instruction after a reset
        jmp     BIOS_SEGMENT:reset
        db      "11/21/26"                  ; the date of the BIOS
        db      0
        db      MACHINE_MODEL
        db      0

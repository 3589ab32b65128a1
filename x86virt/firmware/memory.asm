; How much memory there is, and the ways to ask: INT 12h and INT 15h, AH=88h, AX=E801h, AX=E820h.
;
; The machine has written the sizes into CMOS memory, as the set-up program of the first AT did.

; Read CMOS register AL into AL. Clobbers the flags.
cmos_read:
        or      al, 0x80                    ; bit 7 keeps NMIs out
        out     CMOS_INDEX, al
        in      al, CMOS_DATA
        ret

; Write AH to CMOS register AL.
cmos_write:
        push    ax
        or      al, 0x80
        out     CMOS_INDEX, al
        mov     al, ah
        out     CMOS_DATA, al
        pop     ax
        ret

; EAX = the two bytes of CMOS from register AL on.
cmos_read_word:
        push    bx
        mov     bl, al
        inc     al
        call    cmos_read
        mov     bh, al
        mov     al, bl
        call    cmos_read
        mov     ah, bh
        movzx   eax, ax
        pop     bx
        ret

; Note the size of base memory and lay the extended BIOS data area out.
memory_init:
        mov     word [data_memory_kb], BASE_MEMORY_KB
        mov     word [data_extended_segment], EXTENDED_SEGMENT
        mov     ax, EXTENDED_SEGMENT
        mov     es, ax
        xor     ax, ax
        xor     di, di
        mov     cx, 512
        rep stosw
        mov     byte [es:extended_kilobytes], 1
        ret

; EAX = KB from 1 MB up to 16 MB, EDX = 64 KB units from 16 MB on.
MOST_BELOW_16MB equ 15 * 1024
extended_memory:
        mov     al, CMOS_ABOVE_16MB
        call    cmos_read_word
        mov     edx, eax
        mov     al, CMOS_EXTENDED
        call    cmos_read_word
        cmp     eax, MOST_BELOW_16MB
        jbe     .done
        mov     eax, MOST_BELOW_16MB
.done:
        ret

; EAX = the address behind the last byte of memory, from 1 MB on.
memory_end:
        push    edx
        call    extended_memory
        add     eax, 1024
        shl     eax, 10
        shl     edx, 16
        jz      .done
        lea     eax, [edx + 0x1000000]
.done:
        pop     edx
        ret

; INT 12h: AX = KB of base memory.
int_12h:
        push    ds
        push    DATA_SEGMENT
        pop     ds
        mov     ax, [data_memory_kb]
        pop     ds
        iret

; INT 15h, AH=88h: AX = KB from 1 MB on, as far as a word can say (at most 63 MB).
MOST_OLD_KB     equ 63 * 1024
memory_old_size:
        call    memory_end
        shr     eax, 10
        sub     eax, 1024
        cmp     eax, MOST_OLD_KB
        jbe     .done
        mov     eax, MOST_OLD_KB
.done:
        mov     caller_ax, ax
        jmp     succeed

; INT 15h, AH=E8h: AL says which.
memory_sizes:
        cmp     al, 0x01
        je      memory_two_sizes
        cmp     al, 0x20
        je      memory_map
        jmp     unsupported

; INT 15h, AX=E801h: AX = CX = KB from 1 MB up to 16 MB, BX = DX = 64 KB units above.
memory_two_sizes:
        call    extended_memory
        mov     caller_ax, ax
        mov     caller_cx, ax
        mov     caller_bx, dx
        mov     caller_dx, dx
        jmp     succeed

; INT 15h, AX=E820h: write range number EBX of the memory map to ES:DI; EBX = the next number, 0 after the last.
MAP_SIGNATURE   equ 0x534D4150              ; "SMAP"
MAP_ENTRY_BYTES equ 20
MAP_USABLE      equ 1
MAP_RESERVED    equ 2
MAP_RANGES      equ 5
MAP_MAIN        equ 3                       ; the range whose length is known from CMOS alone
memory_map:
        cmp     edx, MAP_SIGNATURE
        jne     unsupported
        cmp     ecx, MAP_ENTRY_BYTES
        jb      unsupported
        cmp     ebx, MAP_RANGES
        jae     unsupported
        call    memory_end
        sub     eax, 0x100000
        mov     ecx, eax
        imul    si, bx, 12
        add     si, memory_ranges
        mov     eax, [cs:si]
        stosd                               ; base, 64 bits
        xor     eax, eax
        stosd
        mov     eax, [cs:si + 4]
        cmp     bx, MAP_MAIN
        jne     .length
        mov     eax, ecx
.length:
        stosd                               ; length, 64 bits
        xor     eax, eax
        stosd
        mov     eax, [cs:si + 8]
        stosd                               ; kind
        inc     ebx
        cmp     bx, MAP_RANGES
        jb      .next
        xor     ebx, ebx
.next:
        mov     caller_ebx, ebx
        mov     caller_eax, MAP_SIGNATURE
        mov     caller_ecx, MAP_ENTRY_BYTES
        jmp     succeed

memory_ranges:                              ; base, length, kind
        dd      0x00000000, BASE_MEMORY_KB << 10, MAP_USABLE
        dd      EXTENDED_SEGMENT << 4, 0x400, MAP_RESERVED
        dd      0x000F0000, 0x10000, MAP_RESERVED
        dd      0x00100000, 0, MAP_USABLE
        dd      0xFFFF0000, 0x10000, MAP_RESERVED

; INT 15h, AH=24h: the gate of address line 20. AL = 0 close, 1 open, 2 is it open, 3 how can it be switched.
A20_BY_BOTH     equ 3                       ; the keyboard controller and port 92h
a20_services:
        cmp     al, 1
        jb      .close
        je      .open
        cmp     al, 3
        jb      .ask
        je      .ways
        jmp     unsupported
.close:
        in      al, SYSTEM_CONTROL_A
        and     al, ~(CONTROL_A20 | CONTROL_RESET)
        out     SYSTEM_CONTROL_A, al
        jmp     .done
.open:
        call    a20_enable
        jmp     .done
.ask:
        in      al, SYSTEM_CONTROL_A
        and     al, CONTROL_A20
        shr     al, 1
        mov     caller_al, al
        jmp     .done
.ways:
        mov     caller_bx, A20_BY_BOTH
.done:
        mov     caller_ah, 0
        jmp     succeed

; Open the gate of address line 20. Clobbers AL.
a20_enable:
        in      al, SYSTEM_CONTROL_A
        or      al, CONTROL_A20
        and     al, ~CONTROL_RESET
        out     SYSTEM_CONTROL_A, al
        ret

; ATA disks: finding them, and moving sectors by programmed I/O.
;
; DS:SI -> the disk's entry in the extended BIOS data area, in all of these. Interrupts of the devices are off: we look at
; the status until it changes.

LOOKS           equ 1 << 24                 ; then a device is taken for dead; each look takes a part of a microsecond

; Reset both devices of the entry's channel. Clobbers EAX, DX.
ata_reset:
        mov     dx, [si + disk.control]
        mov     al, ATA_CONTROL_RESET
        out     dx, al
        mov     eax, PIT_HZ / 100000        ; 10 microseconds; 5 are asked for
        call    timer_wait
        mov     al, ATA_CONTROL_POLL
        out     dx, al
        mov     eax, PIT_HZ / 500           ; 2 milliseconds
        jmp     timer_wait

; Let 400 nanoseconds pass, after which the status is that of the device that we mean. Clobbers AL, DX.
ata_settle:
        mov     dx, [si + disk.control]
        in      al, dx
        in      al, dx
        in      al, dx
        in      al, dx
        ret

; Wait until the device is not busy: AL = its status; carry if that never happens. Clobbers DX.
ata_wait:
        push    ecx
        mov     ecx, LOOKS
        mov     dx, [si + disk.base]
        add     dx, ATA_STATUS
.look:
        in      al, dx
        test    al, ATA_BUSY
        jz      .ready
        dec     ecx
        jnz     .look
        stc
.ready:                                     ; the carry is clear behind TEST
        pop     ecx
        ret

; Is there an ATA disk? Carry if not; otherwise the entry's sectors are filled in. Clobbers EAX, CX, DX, DI, ES.
IDENTITY_BUFFER equ BOOT_ADDRESS >> 4
IDENTITY_LBA    equ 49 * 2 + 1              ; byte of the identity: bit 1 = it knows LBA
IDENTITY_SECTORS equ 60 * 2
ata_identify:
        mov     dx, [si + disk.base]
        add     dx, ATA_DEVICE
        mov     al, [si + disk.device]
        out     dx, al
        call    ata_settle
        call    .present
        jc      .absent
        call    ata_wait
        jc      .absent
        mov     dx, [si + disk.base]
        add     dx, ATA_COMMAND
        mov     al, ATA_IDENTIFY
        out     dx, al
        call    ata_settle
        call    .present
        jc      .absent
        call    ata_wait
        jc      .absent
        test    al, ATA_ERROR | ATA_FAULT   ; a CD-ROM drive, for example
        jnz     .absent
        test    al, ATA_DATA_REQUEST
        jz      .absent
        mov     ax, IDENTITY_BUFFER
        mov     es, ax
        xor     di, di
        mov     dx, [si + disk.base]
        mov     cx, 256
        rep insw
        test    byte [es:IDENTITY_LBA], 1 << 1
        jz      .absent
        mov     eax, [es:IDENTITY_SECTORS]
        mov     [si + disk.sectors], eax
        cmp     eax, 1                      ; carry if there are none
        ret
.present:                                   ; an empty place reads as zeros or ones
        mov     dx, [si + disk.base]
        add     dx, ATA_STATUS
        in      al, dx
        cmp     al, 1
        jc      .known
        cmp     al, 0xFF
        cmc
.known:
        ret
.absent:
        stc
        ret

; Do command BL (ATA_READ, ATA_WRITE, ATA_VERIFY) on CX sectors from sector EAX on, with ES:DI. AH = 0 or what INT 13h calls
; the error, CX = sectors not done. Clobbers all but SI, DS and BP.
MOST_SECTORS    equ 128                     ; of one command
ata_transfer:
        mov     [extended_command], bl
        call    ata_buffer
.next:
        mov     bx, cx
        cmp     bx, MOST_SECTORS
        jbe     .command
        mov     bx, MOST_SECTORS
.command:
        push    eax
        push    cx
        push    bx
        call    ata_command
        mov     [extended_status], ah
        pop     dx
        pop     cx
        pop     eax
        sub     dx, bx                      ; done
        movzx   edx, dx
        add     eax, edx
        sub     cx, dx
        jz      .done
        cmp     byte [extended_status], 0
        je      .next
.done:
        mov     ah, [extended_status]
        ret

; ES:DI -> the same place by an offset below 16, so that no sector crosses the segment's end. Clobbers DX.
ata_buffer:
        push    ax
        mov     ax, di
        shr     ax, 4
        mov     dx, es
        add     ax, dx
        mov     es, ax
        and     di, 0x0F
        pop     ax
        ret

; One command: BX sectors (1 to 256) from EAX on. BX = sectors not done, AH as above, ES:DI behind what was moved.
DISK_TIMEOUT    equ 0x80
DISK_BAD_SECTOR equ 0x04
DISK_FAILED     equ 0x20
ata_command:
        push    eax
        call    ata_wait
        pop     eax
        jc      .timeout
        call    ata_address
        mov     dx, [si + disk.base]
        add     dx, ATA_COMMAND
        mov     al, [extended_command]
        out     dx, al
        cmp     al, ATA_VERIFY
        je      .verify
.sector:
        call    ata_result
        jnz     .failed
        test    al, ATA_DATA_REQUEST
        jz      .none
        call    ata_move
        dec     bx
        jnz     .sector
        cmp     byte [extended_command], ATA_WRITE
        jne     .done
        call    ata_result                  ; of the last sector
        jz      .done
        inc     bx                          ; it was not written
        ret
.verify:
        call    ata_result
        jnz     .failed
        xor     bx, bx
.done:
        mov     ah, 0
.failed:
        ret
.none:
        mov     ah, DISK_FAILED
        ret
.timeout:
        mov     ah, DISK_TIMEOUT
        ret

; Name the device, the first sector EAX and the number BX. Clobbers EAX, DX.
ata_address:
        push    eax
        shr     eax, 24
        and     al, 0x0F
        or      al, [si + disk.device]
        mov     dx, [si + disk.base]
        add     dx, ATA_DEVICE
        out     dx, al
        call    ata_settle
        call    ata_wait
        mov     dx, [si + disk.base]
        add     dx, ATA_COUNT
        mov     al, bl                      ; 0 stands for 256
        out     dx, al
        pop     eax
        inc     dx
        out     dx, al
        inc     dx
        shr     eax, 8
        out     dx, al
        inc     dx
        shr     eax, 8
        out     dx, al
        ret

; Wait for the device's answer: AL = status, ZF = no error, otherwise AH says which. Clobbers DX.
ata_result:
        call    ata_settle
        call    ata_wait
        mov     ah, DISK_TIMEOUT
        jc      .failed
        mov     ah, DISK_BAD_SECTOR
        test    al, ATA_ERROR
        jnz     .failed
        mov     ah, DISK_FAILED
        test    al, ATA_FAULT
        ret
.failed:
        or      ah, ah                      ; not zero
        ret

; Move one sector between the data register and ES:DI, which goes on to the next. Clobbers AX, CX, DX.
ata_move:
        mov     dx, [si + disk.base]
        mov     cx, 256
        cmp     byte [extended_command], ATA_WRITE
        je      .write
        rep insw
        jmp     .moved
.write:
        push    si
        mov     si, di
        rep es outsw
        mov     di, si
        pop     si
.moved:
        jmp     ata_buffer

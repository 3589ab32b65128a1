; INT 13h: hard disks, numbered from 80h on in the order of their places. There are no diskette drives.

int_13h:
        SERVICES disk_services
disk_services:
        FUNCTION 0x00, disk_reset
        FUNCTION 0x01, disk_last_status
        FUNCTION 0x02, disk_read
        FUNCTION 0x03, disk_write
        FUNCTION 0x04, disk_verify
        FUNCTION 0x08, disk_parameters
        FUNCTION 0x09, disk_ready
        FUNCTION 0x0C, disk_ready           ; seek: disks do that themselves
        FUNCTION 0x0D, disk_reset
        FUNCTION 0x10, disk_ready
        FUNCTION 0x11, disk_ready           ; recalibrate
        FUNCTION 0x14, disk_ready           ; controller's self-test
        FUNCTION 0x15, disk_kind
        FUNCTION 0x41, disk_extensions
        FUNCTION 0x42, disk_read_extended
        FUNCTION 0x43, disk_write_extended
        FUNCTION 0x44, disk_verify_extended
        FUNCTION 0x47, disk_ready           ; seek
        FUNCTION 0x48, disk_parameters_extended
        OTHERWISE disk_refuse

FIRST_DISK      equ 0x80
DISK_FINE       equ 0x00
DISK_BAD_REQUEST equ 0x01

ata_channels:                               ; base, control port, device
        dw      0x1F0, 0x3F6, ATA_BY_LBA
        dw      0x1F0, 0x3F6, ATA_BY_LBA | 0x10
        dw      0x170, 0x376, ATA_BY_LBA
        dw      0x170, 0x376, ATA_BY_LBA | 0x10
ata_channels_end:

; At power-on: find the disks, and say how large they are.
disk_init:
        push    ds
        mov     ax, EXTENDED_SEGMENT
        mov     ds, ax
        mov     si, extended_disks
        mov     bx, ata_channels
        mov     ah, FIRST_DISK
.place:
        push    ax
        mov     ax, [cs:bx]
        mov     [si + disk.base], ax
        mov     ax, [cs:bx + 2]
        mov     [si + disk.control], ax
        mov     al, [cs:bx + 4]
        mov     [si + disk.device], al
        test    al, 0x10                    ; one reset does for both devices
        jnz     .look
        call    ata_reset
.look:
        call    ata_identify
        pop     ax
        jc      .next
        call    disk_geometry
        call    disk_announce
        inc     ah
        add     si, disk_size
.next:
        add     bx, 6
        cmp     bx, ata_channels_end
        jb      .place
        pop     ds
        sub     ah, FIRST_DISK
        mov     [data_disks], ah
        ret

; The geometry by which INT 13h names the sectors of disk DS:SI: 63 sectors a track, and as few heads as make the cylinders
; fit into ten bits. Keeps AX, BX.
FEWEST_HEADS    equ 16
MOST_HEADS      equ 255
MOST_CYLINDERS  equ 1024
disk_geometry:
        push    eax
        push    ebx
        mov     ebx, FEWEST_HEADS
.try:
        mov     eax, TRACK_SECTORS
        mul     ebx
        mov     ecx, eax
        mov     eax, [si + disk.sectors]
        xor     edx, edx
        div     ecx                         ; cylinders
        cmp     eax, MOST_CYLINDERS
        jbe     .fits
        cmp     ebx, MOST_HEADS
        je      .most
        add     ebx, ebx
        cmp     ebx, MOST_HEADS
        jb      .try
        mov     ebx, MOST_HEADS
        jmp     .try
.most:
        mov     eax, MOST_CYLINDERS
.fits:
        cmp     eax, 1
        adc     eax, 0                      ; at least one
        mov     [si + disk.heads], bx
        mov     [si + disk.cylinders], ax
        pop     ebx
        pop     eax
        ret

; Print the number AH of disk DS:SI and its size. Keeps all.
disk_announce:
        push    eax
        push    si
        mov     si, text_disk
        call    print
        movzx   eax, ah
        sub     al, FIRST_DISK
        call    print_decimal
        mov     si, text_disk_size
        call    print
        pop     si
        push    si
        mov     eax, [si + disk.sectors]
        shr     eax, 1
        call    print_decimal
        mov     si, text_disk_unit
        call    print
        pop     si
        pop     eax
        ret

text_disk:
        db      "Hard disk ", 0
text_disk_size:
        db      ": ", 0
text_disk_unit:
        db      " KB", 13, 10, 0

; DS:SI -> the entry of disk DL; ends the service if there is no such disk. Keeps the others.
disk_select:
        mov     si, dx
        and     si, 0xFF
        sub     si, FIRST_DISK
        jb      .none
        push    ax
        mov     al, [data_disks]
        mov     ah, 0
        cmp     si, ax
        pop     ax
        jae     .none
        imul    si, si, disk_size
        add     si, extended_disks
        push    EXTENDED_SEGMENT
        pop     ds
        ret
.none:
        pop     ax                          ; the routine's own return address
        ; disk_refuse follows

; The ends of a disk service: AH = the status.
disk_refuse:
        mov     ah, DISK_BAD_REQUEST
        jmp     disk_done
disk_succeed:
        mov     ah, DISK_FINE
disk_done:
        push    DATA_SEGMENT
        pop     ds
        mov     [data_disk_status], ah
        mov     caller_ah, ah
        test    ah, ah
        jz      succeed
        jmp     refuse

; AH=00h and 0Dh.
disk_reset:
        call    disk_select
        call    allow_interrupts
        call    ata_reset
        call    ata_wait
        mov     ah, DISK_TIMEOUT
        jc      disk_done
        jmp     disk_succeed

; AH=01h: AH = the status of the last service.
disk_last_status:
        mov     ah, [data_disk_status]
        jmp     disk_done

; AH=09h, 0Ch, 10h, 11h, 14h, 47h: nothing is to be done, if the disk is there.
disk_ready:
        call    disk_select
        jmp     disk_succeed

; AH=02h, 03h, 04h: AL sectors from cylinder CH (and bits 7-6 of CL), head DH, sector CL (from 1 on), with ES:BX.
; AL = sectors done.
disk_read:
        push    word ATA_READ
        jmp     disk_by_geometry
disk_write:
        push    word ATA_WRITE
        jmp     disk_by_geometry
disk_verify:
        push    word ATA_VERIFY
disk_by_geometry:
        pop     di
        call    disk_select
        call    disk_sector
        jc      disk_refuse
        mov     bx, di
        mov     di, caller_bx
        movzx   cx, caller_al
        test    cl, cl
        jz      disk_refuse
        cmp     cl, MOST_SECTORS
        ja      disk_refuse
        call    disk_within
        jc      disk_refuse
        call    allow_interrupts
        call    ata_transfer
        sub     caller_al, cl
        jmp     disk_done

; EAX = the number of the sector that CX and DH name on disk DS:SI; carry if there is none. Clobbers ECX, EDX.
disk_sector:
        push    bx
        movzx   bx, cl
        and     bx, 0x3F                    ; sector
        shr     cl, 6
        xchg    ch, cl                      ; CX = cylinder
        mov     dl, dh
        mov     dh, 0                       ; DX = head
        cmp     cx, [si + disk.cylinders]
        jae     .none
        cmp     dx, [si + disk.heads]
        jae     .none
        sub     bx, 1
        jb      .none
        cmp     bx, TRACK_SECTORS
        jae     .none
        movzx   ecx, cx
        movzx   eax, word [si + disk.heads]
        movzx   edx, dx
        imul    eax, ecx
        add     eax, edx
        imul    eax, eax, TRACK_SECTORS
        movzx   ebx, bx
        add     eax, ebx
        pop     bx
        clc
        ret
.none:
        pop     bx
        stc
        ret

; Carry if sectors EAX to EAX + CX - 1 are not all on disk DS:SI. Keeps EAX, CX.
disk_within:
        push    ecx
        movzx   ecx, cx
        add     ecx, eax
        jc      .done
        cmp     [si + disk.sectors], ecx
.done:
        pop     ecx
        ret

; AH=08h: CH and CL = the last cylinder and sector, DH = the last head, DL = how many disks there are.
disk_parameters:
        call    disk_select
        mov     cx, [si + disk.cylinders]
        dec     cx
        xchg    ch, cl
        shl     cl, 6
        or      cl, TRACK_SECTORS
        mov     caller_cx, cx
        mov     ax, [si + disk.heads]
        dec     ax
        mov     caller_dh, al
        push    DATA_SEGMENT
        pop     ds
        mov     al, [data_disks]
        mov     caller_dl, al
        mov     caller_al, 0
        jmp     disk_succeed

; AH=15h: AH = 3 (a hard disk), CX:DX = sectors that cylinder, head and sector can name.
KIND_HARD_DISK  equ 3
disk_kind:
        call    disk_select
        mov     ax, [si + disk.cylinders]
        imul    bx, [si + disk.heads], TRACK_SECTORS
        mul     bx
        mov     caller_cx, dx
        mov     caller_dx, ax
        push    DATA_SEGMENT
        pop     ds
        mov     byte [data_disk_status], DISK_FINE
        mov     caller_ah, KIND_HARD_DISK
        jmp     succeed

; INT 13h extensions: sectors by number instead of cylinder, head and sector (EDD 1.1; NCITS TR-21).

EXTENSIONS_VERSION equ 0x21                 ; EDD 1.1
EXTENSIONS_ACCESS equ 1 << 0                ; 42h to 44h, 47h, 48h are here
; What DS:SI of the caller points to.
struc packet
.bytes          resb 1
                resb 1
.count          resw 1                      ; sectors; afterwards: sectors done
.offset         resw 1
.segment        resw 1
.sector         resq 1
endstruc

; AH=41h, BX=55AAh: BX = AA55h, AH = version, CX = what is here.
disk_extensions:
        cmp     bx, 0x55AA
        jne     disk_refuse
        call    disk_select
        mov     caller_bx, 0xAA55
        mov     caller_cx, EXTENSIONS_ACCESS
        mov     caller_ah, EXTENSIONS_VERSION
        jmp     succeed

; AH=42h, 43h, 44h.
disk_read_extended:
        push    word ATA_READ
        jmp     disk_by_packet
disk_write_extended:
        push    word ATA_WRITE
        jmp     disk_by_packet
disk_verify_extended:
        push    word ATA_VERIFY
disk_by_packet:
        pop     bx
        call    disk_select
        mov     es, caller_ds
        mov     di, caller_si
        cmp     byte [es:di + packet.bytes], packet_size
        jb      disk_refuse
        cmp     dword [es:di + packet.sector + 4], 0
        jne     disk_refuse
        mov     eax, [es:di + packet.sector]
        mov     cx, [es:di + packet.count]
        call    disk_within
        jc      disk_refuse
        test    cx, cx
        jz      disk_succeed
        les     di, [es:di + packet.offset]
        call    allow_interrupts
        call    ata_transfer
        mov     es, caller_ds
        mov     di, caller_si
        sub     [es:di + packet.count], cx
        jmp     disk_done

; AH=48h: describe the disk at DS:SI of the caller, which begins with the size of the place for it.
struc parameters
.bytes          resw 1
.information    resw 1
.cylinders      resd 1
.heads          resd 1
.track          resd 1
.sectors        resq 1
.sector_bytes   resw 1
endstruc
GEOMETRY_VALID  equ 1 << 1
MOST_ATA_CYLINDERS equ 16383
disk_parameters_extended:
        call    disk_select
        mov     es, caller_ds
        mov     di, caller_si
        cmp     word [es:di + parameters.bytes], parameters_size
        jb      disk_refuse
        mov     word [es:di + parameters.bytes], parameters_size
        mov     word [es:di + parameters.information], GEOMETRY_VALID
        mov     eax, [si + disk.sectors]
        mov     [es:di + parameters.sectors], eax
        mov     dword [es:di + parameters.sectors + 4], 0
        xor     edx, edx
        mov     ecx, FEWEST_HEADS * TRACK_SECTORS
        div     ecx
        cmp     eax, MOST_ATA_CYLINDERS
        jbe     .cylinders
        mov     eax, MOST_ATA_CYLINDERS
.cylinders:
        mov     [es:di + parameters.cylinders], eax
        mov     dword [es:di + parameters.heads], FEWEST_HEADS
        mov     dword [es:di + parameters.track], TRACK_SECTORS
        mov     word [es:di + parameters.sector_bytes], 512
        jmp     disk_succeed

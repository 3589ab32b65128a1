; Virtual devices: registers in the VMM's memory, and a table from ports to what reads and writes them. They touch no
; hardware, and are reached through SS, as the callouts need it that leave the guest's data segments loaded. Here are two 8259A interrupt controllers in their usual modes, the latched counts of the 8254, the console
; and the POST port; initialization and unusual modes are left to a slower path.

; EDX a port, EBX bytes, EAX the value. Wider accesses are bytes at successive ports. Uses ECX, ESI, EDI.
        align 16
device_out:
        BEGIN
        push    ebx
.next:
        cmp     edx, 0x100
        jae     .high
        movzx   ecx, byte [ss:port_kinds + edx]
        push    eax
        push    edx
        movzx   eax, al
        call    [ss:port_writers + ecx * 4]
        pop     edx
        pop     eax
.written:
        shr     eax, 8
        inc     edx
        dec     ebx
        jnz     .next
        pop     ebx
        END_PATH device_request
        ret
.high:
        cmp     edx, 0x8900
        je      refuse
        inc     dword [ss:DEVICE(unclaimed_writes)]
        jmp     .written

; EDX a port, EBX bytes -> EAX the value. Uses ECX, ESI, EDI.
        align 16
device_in:
        BEGIN
        push    ebx
        xor     edi, edi
.next:
        cmp     edx, 0x100
        jae     .high
        movzx   ecx, byte [ss:port_kinds + edx]
        push    edx
        call    [ss:port_readers + ecx * 4]
        pop     edx
.read:
        shl     eax, 24
        shr     edi, 8
        or      edi, eax                        ; bytes come in from above
        inc     edx
        dec     ebx
        jnz     .next
        pop     ebx
        mov     ecx, 4
        sub     ecx, ebx
        shl     ecx, 3
        shr     edi, cl
        mov     eax, edi
        END_PATH device_request
        ret
.high:
        cmp     edx, 0x8900
        je      refuse
        inc     dword [ss:DEVICE(unclaimed_reads)]
        mov     eax, 0xFF
        jmp     .read

NOTHING  equ 0
PIC_MASTER_COMMAND equ 1
PIC_MASTER_DATA equ 2
PIC_SLAVE_COMMAND equ 3
PIC_SLAVE_DATA equ 4
PIT_COUNTER equ 5
OTHERS   equ 6
POST     equ 7
CONSOLE  equ 8

        align 64
port_kinds:
%assign port 0
%rep 256
    %if port == 0x20
        db      PIC_MASTER_COMMAND
    %elif port == 0x21
        db      PIC_MASTER_DATA
    %elif port == 0xA0
        db      PIC_SLAVE_COMMAND
    %elif port == 0xA1
        db      PIC_SLAVE_DATA
    %elif port >= 0x40 && port <= 0x42
        db      PIT_COUNTER
    %elif port == 0x43 || port == 0x61 || port == 0xF4
        db      OTHERS
    %elif port == 0x80
        db      POST
    %elif port == 0xE9
        db      CONSOLE
    %else
        db      NOTHING
    %endif
    %assign port port + 1
%endrep

port_writers:
        dd      write_nothing, write_command, write_mask, write_slave_command, write_slave_mask
        dd      refuse, refuse, write_post, write_console
port_readers:
        dd      read_nothing, read_status, read_mask, read_slave_status, read_slave_mask
        dd      read_counter, refuse, read_post, read_console

write_nothing:
        inc     dword [ss:DEVICE(unclaimed_writes)]
        ret
read_nothing:
        inc     dword [ss:DEVICE(unclaimed_reads)]
        mov     eax, 0xFF
        ret
write_post:
        mov     [ss:DEVICE(post_code)], eax
        ret
read_post:
        mov     eax, [ss:DEVICE(post_code)]
        ret
write_console:
        mov     ecx, [ss:DEVICE(console_length)]
        cmp     ecx, CONSOLE_BYTES
        jae     refuse                          ; full: the text is taken away first
        mov     [ss:DEVICE(console) + ecx], al
        inc     dword [ss:DEVICE(console_length)]
        ret
read_console:
        mov     eax, 0xE9
        ret

; -- 8259A ------------------------------------------------------------------------------------------------------------

%define MASTER (VMM_BASE + DEVICES + DEVICE_master)
%define SLAVE  (VMM_BASE + DEVICES + DEVICE_slave)

write_slave_mask:
        mov     esi, SLAVE
        jmp     write_mask.pic
write_mask:
        mov     esi, MASTER
.pic:
        mov     ecx, [ss:esi + PIC_expected_icw]
        or      ecx, [ss:esi + PIC_unusual]
        jnz     refuse
        mov     [ss:esi + PIC_imr], eax
        jmp     signal

write_slave_command:
        mov     esi, SLAVE
        jmp     write_command.pic
write_command:
        mov     esi, MASTER
.pic:
        cmp     dword [ss:esi + PIC_unusual], 0
        jne     refuse
        test    al, 0x18
        jnz     .mode
        test    al, 0x20                        ; OCW2: an end of interrupt, of the highest in service or of one named
        jz      refuse
        test    al, 0x80
        jnz     refuse                          ; rotation
        test    al, 0x40
        jnz     .specific
        bsf     ecx, dword [ss:esi + PIC_isr]
        jz      signal
        btr     dword [ss:esi + PIC_isr], ecx
        jmp     signal
.specific:
        and     eax, 7
        btr     dword [ss:esi + PIC_isr], eax
        jmp     signal
.mode:
        test    al, 0x10
        jnz     refuse                          ; ICW1: initialization
        test    al, 0x64
        jnz     refuse                          ; special mask, poll
        test    al, 2
        jz      signal
        and     eax, 1
        mov     [ss:esi + PIC_read_isr], eax
        jmp     signal

read_slave_mask:
        mov     esi, SLAVE
        jmp     read_mask.pic
read_mask:
        mov     esi, MASTER
.pic:
        cmp     dword [ss:esi + PIC_unusual], 0
        jne     refuse
        mov     eax, [ss:esi + PIC_imr]
        jmp     read_status.signal

read_slave_status:
        mov     esi, SLAVE
        jmp     read_status.pic
read_status:
        mov     esi, MASTER
.pic:
        cmp     dword [ss:esi + PIC_unusual], 0
        jne     refuse
        mov     eax, [ss:esi + PIC_irr]
        cmp     dword [ss:esi + PIC_read_isr], 0
        je      .signal
        mov     eax, [ss:esi + PIC_isr]
.signal:
        push    eax
        call    signal
        pop     eax
        ret

; ESI a controller -> EAX the input that it asks for, -1 for none: the highest unmasked request, if none of its own or
; of higher priority is in service. Uses ECX.
selected:
        mov     ecx, [ss:esi + PIC_imr]
        not     ecx
        and     ecx, [ss:esi + PIC_irr]
        jz      .none
        cmp     dword [ss:esi + PIC_ready], 0
        je      .none
        bsf     eax, ecx
        bsf     ecx, dword [ss:esi + PIC_isr]
        jz      .done
        cmp     eax, ecx
        jae     .none
.done:
        ret
.none:
        mov     eax, -1
        ret

; Carry the slave's output to the master's input 2, and the master's to the processor. Uses EAX, ECX, ESI.
signal:
        mov     esi, SLAVE
        call    selected
        test    eax, eax
        js      .slave_low
        or      dword [ss:MASTER + PIC_lines], 4
        or      dword [ss:MASTER + PIC_irr], 4
        jmp     .master
.slave_low:
        and     dword [ss:MASTER + PIC_lines], ~4
.master:
        mov     esi, MASTER
        call    selected
        not     eax
        shr     eax, 31                         ; 1 unless it is -1
        mov     [ss:DEVICE(pending)], eax
        ret

; The processor's acknowledgement -> EAX the vector. Uses ECX, EDX, ESI.
        align 16
acknowledge:
        BEGIN
        mov     esi, MASTER
        mov     ecx, [ss:esi + PIC_unusual]
        or      ecx, [ss:SLAVE + PIC_unusual]
        jnz     refuse
        call    selected
        test    eax, eax
        js      refuse                          ; gone again: spurious
        btr     dword [ss:esi + PIC_irr], eax
        bts     dword [ss:esi + PIC_isr], eax
        mov     edx, [ss:esi + PIC_vector_offset]
        cmp     eax, 2
        jne     .vector
        test    dword [ss:esi + PIC_cascade], 4
        jz      .vector
        mov     esi, SLAVE
        call    selected
        test    eax, eax
        js      refuse
        btr     dword [ss:esi + PIC_irr], eax
        bts     dword [ss:esi + PIC_isr], eax
        mov     edx, [ss:esi + PIC_vector_offset]
.vector:
        add     edx, eax
        push    edx
        call    signal
        pop     eax
        END_PATH device_request
        ret

; -- 8254 -------------------------------------------------------------------------------------------------------------
; A latched count is read low byte first if both are to be read.
read_counter:
        lea     esi, [edx - 0x40]
        shl     esi, 4                          ; PIT_BYTES
        add     esi, VMM_BASE + DEVICES + DEVICE_pit
        cmp     dword [ss:esi + PIT_count_latched], 0
        je      refuse                          ; counting: the time must be looked at
        mov     eax, [ss:esi + PIT_latched_count]
        cmp     dword [ss:esi + PIT_access], 3
        jne     .last
        cmp     dword [ss:esi + PIT_read_second], 0
        jne     .last
        mov     dword [ss:esi + PIT_read_second], 1
        movzx   eax, al
        ret
.last:
        mov     dword [ss:esi + PIT_read_second], 0
        mov     dword [ss:esi + PIT_count_latched], 0
        cmp     dword [ss:esi + PIT_access], 1
        je      .low
        shr     eax, 8
        ret
.low:
        movzx   eax, al
        ret

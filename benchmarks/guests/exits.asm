; exits: what each thing costs that makes a hardware-assisted VMM take a VM exit, one kind at a time.
;
; Region by region, in the kernel: CPUID; the processor's call of a VMM (VMCALL, or VMMCALL of AMD), which is an invalid
; opcode to whoever has no VMM; UD2, the same without the call; IN; OUT; RDMSR; WRMSR; INVLPG; a write to CR3; a write to
; CR0 that turns one bit; a page fault that the kernel answers by skipping the instruction; HLT until the timer interrupts; a
; frame of RAM written to for the first time; STI while the timer's interrupt waits; LIDT. In regions 11 and 13 the timer is set
; (one shot of the 8254) and its controller asked outside of the region, which ends at the handler's first instruction.
;
; It teaches where the time of a VMM goes that leaves everything else to the processor; which of these exit at all is the
; technique's choice, and the processor's. Region 1 less region 2 is the exit of a call, region 12 what nested paging pays once.
;
; Checks: what each instruction leaves in its registers, the number of faults and of ticks, the contents of the frames.

%define GUEST_NAME "exits"
%define DEFAULT_ITERATIONS 100
%include "kernel.inc"

VECTOR_UD       equ 6
MSR_MCG_STATUS  equ 0x17A                   ; no machine check is in progress: it reads as zero
VENDOR_AMD      equ "Auth"                  ; the first letters of AuthenticAMD
CALL_LENGTH     equ 3                       ; VMCALL, VMMCALL
UD2_LENGTH      equ 2
READ_LENGTH     equ 2                       ; MOV EAX, [EDI]
CR0_NE          equ 1 << 5
CR0_TS          equ 1 << 3
FRESH           equ 0x400000                ; frames that nothing has used: mapped one to one
FRESH_FRAMES    equ 1000
ABSENT          equ FRESH + (PTES - 1) * PAGE
ABSENT_PTE      equ page_table_1 + (PTES - 1) * 4
PIT_PERIOD      equ 838                     ; nanoseconds
PIT_MODE_0      equ 0x30                    ; channel 0, low byte then high byte, its output rises once, binary
IDLE_COUNT      equ 200                     ; 168 microseconds
SHORT_COUNT     equ 30                      ; 25 microseconds
POLL_LIMIT      equ 1 << 20

; One region: the body stands between, and keeps ESI. Clobbers EAX, EDX.
%macro LOOP_BEGIN 1
        mov     esi, [iterations]
        REGION_BEGIN %1
%%turn:
%define LOOP_TURN %%turn
%endmacro
%macro LOOP_END 0
        dec     esi
        jnz     LOOP_TURN
        mov     eax, [iterations]
        REGION_END
%endmacro

        section .text
guest_main:
        mov     dword [trap_handlers + VECTOR_UD * 4], skip
        mov     dword [trap_handlers + VECTOR_PF * 4], page_fault
        call    identify
        call    invalid_opcodes
        call    ports
        call    registers
        call    memory
        call    interrupts
        jmp     pass

; CPUID, and whose processor it is.
identify:
        xor     eax, eax
        IDENTIFY
        mov     [vendor], ebx
        LOOP_BEGIN 0
        xor     eax, eax
        IDENTIFY
        LOOP_END
        cmp     ebx, [vendor]
        FAIL_IF ne, 1, "CPUID changed its mind"
        ret

invalid_opcodes:
        mov     dword [faults], 0
        mov     dword [length], CALL_LENGTH
        LOOP_BEGIN 1
        cmp     dword [vendor], VENDOR_AMD
        je      .amd
        db      0x0F, 0x01, 0xC1            ; VMCALL
        jmp     .called
.amd:
        db      0x0F, 0x01, 0xD9            ; VMMCALL
.called:
        LOOP_END
        cmp     eax, [faults]
        FAIL_IF ne, 2, "a call of a VMM that there is not raised no invalid opcode"
        mov     dword [faults], 0
        mov     dword [length], UD2_LENGTH
        LOOP_BEGIN 2
        ud2
        LOOP_END
        cmp     eax, [faults]
        FAIL_IF ne, 3, "UD2 raised no invalid opcode"
        ret

ports:
        LOOP_BEGIN 3
        in      al, PORT_POST
        LOOP_END
        LOOP_BEGIN 4
        out     PORT_POST, al
        LOOP_END
        ret

registers:
        mov     ecx, MSR_MCG_STATUS
        mov     ebx, 0
        LOOP_BEGIN 5
        rdmsr
        or      ebx, eax
        or      ebx, edx
        LOOP_END
        cmp     ebx, 0
        FAIL_IF ne, 4, "RDMSR gave another value than zero"
        LOOP_BEGIN 6
        xor     eax, eax
        xor     edx, edx
        wrmsr
        LOOP_END
        LOOP_BEGIN 7
        FLUSH_PAGE ABSENT - PAGE
        LOOP_END
        mov     ebx, page_directory
        LOOP_BEGIN 8
        LOAD_CR3 ebx
        LOOP_END
        READ_CR3 eax
        cmp     eax, ebx
        FAIL_IF ne, 5, "CR3 is not what was written"
%ifdef XEN
        xor     ebx, ebx                    ; of CR0 the kernel may turn TS, by a hypercall of its own
        LOOP_BEGIN 9
        xor     ebx, CR0_TS
        push    ebx
        HYPERCALL fpu_taskswitch
        pop     ebx
        LOOP_END
        mov     eax, cr0
        and     eax, CR0_TS
        cmp     eax, ebx
        FAIL_IF ne, 6, "CR0.TS is not what was asked for"
        xor     ebx, ebx
        HYPERCALL fpu_taskswitch
        LOOP_BEGIN 14
        call    idt_load
        LOOP_END
%else
        mov     ebx, CR0_VALUE
        LOOP_BEGIN 9
        xor     ebx, CR0_NE
        mov     cr0, ebx
        LOOP_END
        mov     eax, cr0
        cmp     eax, ebx
        FAIL_IF ne, 6, "CR0 is not what was written"
        mov     eax, CR0_VALUE
        mov     cr0, eax
        LOOP_BEGIN 14
        lidt    [idt_pointer]
        LOOP_END
%endif
        ret

memory:
        CHANGE_PTE ABSENT, ABSENT_PTE, 0
        mov     dword [faults], 0
        mov     dword [length], READ_LENGTH
        mov     edi, ABSENT
        LOOP_BEGIN 10
        mov     eax, [edi]
        LOOP_END
        cmp     eax, [faults]
        FAIL_IF ne, 7, "another number of page faults than reads"

        mov     ebx, [iterations]           ; a frame is fresh but once
        cmp     ebx, FRESH_FRAMES
        jbe     .fit
        mov     ebx, FRESH_FRAMES
.fit:
        mov     ecx, ebx
        mov     edi, FRESH
        REGION_BEGIN 12
.touch:
        mov     [edi], ecx
        add     edi, PAGE
        dec     ecx
        jnz     .touch
        mov     eax, ebx
        REGION_END
        mov     edi, FRESH
.look:
        cmp     [edi], ebx
        FAIL_IF ne, 8, "a frame holds another word than was written"
        add     edi, PAGE
        dec     ebx
        jnz     .look
        ret

; What takes one tick after another. EBX counts them down.
interrupts:
        OPEN_TIMER_LINE
        mov     dword [trap_handlers + VECTOR_IRQ0 * 4], tick_in_halt
        mov     ebx, [iterations]
.wait:
        mov     ecx, IDLE_COUNT
        call    shot
        mov     dword [ticks], 0
        REGION_BEGIN 11
        ENABLE_AND_HALT
        DISABLE_INTERRUPTS
        cmp     dword [ticks], 1
        FAIL_IF ne, 9, "HLT ended without its tick"
        dec     ebx
        jnz     .wait

        mov     dword [trap_handlers + VECTOR_IRQ0 * 4], tick_in_window
        mov     ebx, [iterations]
.open:
        mov     ecx, SHORT_COUNT
        call    shot
        call    await_request
        mov     dword [ticks], 0
        REGION_BEGIN 13
        ENABLE_INTERRUPTS
        nop                                 ; STI holds interrupts off for one instruction
        DISABLE_INTERRUPTS
        cmp     dword [ticks], 1
        FAIL_IF ne, 10, "STI did not let the waiting tick in"
        dec     ebx
        jnz     .open
        jmp     timer_stop

; One rise of the timer's output after ECX periods. Clobbers EAX.
shot:
%ifdef XEN
        imul    eax, ecx, PIT_PERIOD
        jmp     timer_shot
%else
        mov     al, PIT_MODE_0
        out     PIT_CONTROL, al
        mov     al, cl
        out     PIT_CHANNEL_0, al
        mov     al, ch
        out     PIT_CHANNEL_0, al
        ret
%endif

; Ask the controller, interrupts off, until line 0 has a request waiting. Clobbers EAX, ECX.
await_request:
        mov     ecx, POLL_LIMIT
.poll:
        call    timer_pending
        test    eax, eax
        jnz     .done
        dec     ecx
        jnz     .poll
        FAIL    11, "the timer requests no interrupt"
.done:
        ret

tick_in_halt:
        mov     eax, 1
        REGION_END
        jmp     count_tick

tick_in_window:
        mov     eax, 1
        REGION_END
count_tick:
        inc     dword [ticks]
        jmp     pic_eoi

; #PF: the page is not present and stays so.
page_fault:
        READ_CR2 eax
        cmp     eax, ABSENT
        FAIL_IF ne, 12, "CR2 is not the page read"
        cmp     dword [ebp + FRAME_ERROR], 0
        FAIL_IF ne, 12, "wrong error code of a page fault"
; #UD too: the instruction is skipped.
skip:
        inc     dword [faults]
        mov     eax, [length]
        add     [ebp + FRAME_EIP], eax
        ret

        section .data
        align   4
vendor:
        dd      0
faults:
        dd      0
length:
        dd      0
ticks:
        dd      0

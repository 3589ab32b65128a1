; hypervisor: a hypervisor in miniature. One iteration is a CPUID, an OUT, an IN, a HLT and a call of the guest's, each an exit.
;
; It teaches what the virtual-machine extensions are for: the guest below is ordinary code of ring 0 in protected mode, which
; uses what a hypervisor wants to see, and each time control comes back here with the reason. lib/vmx.inc says how this is done
; with VMX. On a processor without the extensions, or where firmware has locked them away, it says so and ends well.
;
; Checks: 1 the signature that CPUID gives in the guest; 2 what IN gives; 3 an exit of another kind; 4 to 8 the counts of each kind
; of exit; 9 the sum of what was written by OUT; 10 a register of the host's; 20 to 26 a VMX instruction that failed.

%define GUEST_NAME "hypervisor"
%define DEFAULT_ITERATIONS 100
%include "kernel.inc"

EXIT_OTHER      equ 0                       ; what <extension>_run answers
EXIT_CPUID      equ 1
EXIT_HLT        equ 2
EXIT_OUT        equ 3
EXIT_IN         equ 4
EXIT_CALL       equ 5
EXIT_KINDS      equ 6

PORT            equ 0x80
SIGNATURE_LEAF  equ 0x40000000
SIGNATURE_1     equ "mini"
SIGNATURE_2     equ "atur"
SIGNATURE_3     equ "e VM"
CALL_COUNT      equ 1                       ; EAX of the guest's calls: one iteration is done
CALL_END        equ 2
CALL_WRONG      equ 3                       ; EBX: the code of a check that failed in the guest
INPUT           equ 0x5A                    ; what IN gives, plus the number of the exit

%include "vmx.inc"

        section .bss
guest_eax:      resd    1                   ; the guest's general registers while the host runs
guest_ebx:      resd    1
guest_ecx:      resd    1
guest_edx:      resd    1
guest_esi:      resd    1
guest_edi:      resd    1
guest_ebp:      resd    1
guest_entry:    resd    1
guest_stack:    resd    1
exits:          resd    EXIT_KINDS          ; how often the guest exited, by kind
output_sum:     resd    1
guest_call:     resd    1                   ; the routine that calls the hypervisor

        section .tables
                resb    PAGE
guest_stack_top:

        section .text
guest_main:
        call    vmx_present
        test    eax, eax
        jnz     .vmx
        PRINT   "hypervisor: no virtual-machine extensions here", 10
        jmp     pass
.vmx:
        PRINT   "hypervisor: VMX", 10
        mov     dword [guest_entry], inner_kernel
        mov     dword [guest_stack], guest_stack_top
        mov     dword [guest_call], vmx_call
        call    vmx_begin
        mov     ebp, 0x600D600D
.run:
        call    vmx_run
        cmp     ebp, 0x600D600D
        FAIL_IF ne, 10, "a register of the host's was lost over the guest"
        cmp     eax, EXIT_OTHER
        FAIL_IF e, 3, "the guest exited for another reason"
        inc     dword [exits + eax * 4]
        call    [.handlers + eax * 4]
        call    vmx_skip
        cmp     dword [guest_entry], 0      ; the guest has ended
        jne     .run
        call    vmx_end
        jmp     check_counts

        section .rodata
        align   4
.handlers:
        dd      0, on_cpuid, on_hlt, on_out, on_in, on_call

        section .text
; CPUID: the hypervisor's signature in its own leaf, zeros elsewhere.
on_cpuid:
        xor     eax, eax
        xor     ebx, ebx
        xor     ecx, ecx
        xor     edx, edx
        cmp     dword [guest_eax], SIGNATURE_LEAF
        jne     .answer
        mov     eax, SIGNATURE_LEAF
        mov     ebx, SIGNATURE_1
        mov     ecx, SIGNATURE_2
        mov     edx, SIGNATURE_3
.answer:
        mov     [guest_eax], eax
        mov     [guest_ebx], ebx
        mov     [guest_ecx], ecx
        mov     [guest_edx], edx
        ret

; HLT: nothing to wait for.
on_hlt:
        ret

; OUT: the device is a sum.
on_out:
        cmp     edx, PORT
        FAIL_IF ne, 3, "the guest wrote another port"
        movzx   eax, byte [guest_eax]
        add     [output_sum], eax
        ret

; IN: the device counts.
on_in:
        cmp     edx, PORT
        FAIL_IF ne, 3, "the guest read another port"
        mov     al, [exits + EXIT_IN * 4]
        add     al, INPUT
        mov     [guest_eax], al
        ret

; A call: the guest has done an iteration, has ended, or has found something wrong.
on_call:
        cmp     dword [guest_eax], CALL_WRONG
        jne     .right
        cmp     dword [guest_ebx], 1
        FAIL_IF e, 1, "CPUID in the guest did not give the hypervisor's signature"
        FAIL    2, "IN in the guest did not give what the hypervisor put there"
.right:
        cmp     dword [guest_eax], CALL_END
        jne     .goes_on
        mov     dword [guest_entry], 0
.goes_on:
        ret

; Each iteration makes one exit of each kind, the end one more call.
check_counts:
        mov     eax, [iterations]
        cmp     [exits + EXIT_CPUID * 4], eax
        FAIL_IF ne, 4, "another number of exits for CPUID"
        cmp     [exits + EXIT_HLT * 4], eax
        FAIL_IF ne, 5, "another number of exits for HLT"
        cmp     [exits + EXIT_OUT * 4], eax
        FAIL_IF ne, 6, "another number of exits for OUT"
        cmp     [exits + EXIT_IN * 4], eax
        FAIL_IF ne, 7, "another number of exits for IN"
        inc     eax
        cmp     [exits + EXIT_CALL * 4], eax
        FAIL_IF ne, 8, "another number of calls"
        xor     eax, eax                    ; the guest wrote the low bytes of iterations, iterations - 1, ..., 1
        mov     ecx, [iterations]
.add:
        movzx   edx, cl
        add     eax, edx
        dec     ecx
        jnz     .add
        cmp     [output_sum], eax
        FAIL_IF ne, 9, "the device did not see what the guest wrote"
        jmp     pass

; -- the guest ------------------------------------------------------------------------------------------------------------

; A kernel that knows nothing of its hypervisor but the calls. It runs in ring 0, paging on.
inner_kernel:
        mov     esi, [iterations]
        xor     edi, edi
.iteration:
        inc     edi
        mov     eax, SIGNATURE_LEAF
        cpuid
        cmp     ebx, SIGNATURE_1
        jne     .no_signature
        cmp     ecx, SIGNATURE_2
        jne     .no_signature
        cmp     edx, SIGNATURE_3
        jne     .no_signature
        mov     eax, esi
        out     PORT, al
        in      al, PORT
        mov     ecx, edi
        add     cl, INPUT
        cmp     al, cl
        jne     .no_input
        hlt
        mov     eax, CALL_COUNT
        call    [guest_call]
        dec     esi
        jnz     .iteration
        mov     eax, CALL_END
        call    [guest_call]
.no_signature:
        mov     ebx, 1
        jmp     .wrong
.no_input:
        mov     ebx, 2
.wrong:
        mov     eax, CALL_WRONG
        call    [guest_call]
        jmp     .wrong

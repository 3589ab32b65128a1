; MOV to and from debug registers, RDTSC and RDPMC, performed on the virtual processor as emulate.asm performs the others.

; EDX the number of a debug register: DR4 and DR5 are DR6 and DR7 unless CR4.DE forbids them. Under general detect there
; is #DB, which is left to a slower path.
debug_register:
        mov     edx, [instruction_reg]
        mov     ecx, edx
        and     ecx, 6
        cmp     ecx, 4
        jne     .known
        test    dword [VCPU(cr4)], CR4_DE
        jnz     fault_ud
        add     edx, 2
.known:
        test    dword [VCPU(dr) + 7 * 4], DR7_GD
        jnz     refuse
        ret

; EAX a value of the debug register EDX -> EAX with the reserved bits of DR6 and DR7 as they must read.
debug_value:
        cmp     edx, 6
        jb      .done
        ja      .control
        and     eax, 0xE00F
        or      eax, 0xFFFF0FF0
.done:
        ret
.control:
        and     eax, 0xFFFF2BFF
        or      eax, 0x400
        ret

        align 16
from_debug:
        call    modrm
        DECODED
        PRIVILEGED
        call    debug_register
        mov     eax, [VCPU(dr) + edx * 4]
        call    debug_value
        mov     ecx, [instruction_rm]
        movzx   ecx, byte [register_slots + ecx]
        mov     [ebp + ecx], eax
        FINISH  emulate_control_register

; Breakpoints on code are the processor's own. While there are others, or some within the VMM, the guest is interpreted.
        align 16
to_debug:
        call    modrm
        DECODED
        PRIVILEGED
        call    debug_register
        mov     ecx, [instruction_rm]
        movzx   ecx, byte [register_slots + ecx]
        mov     eax, [ebp + ecx]
        call    debug_value
        mov     edi, [VCPU(dr) + edx * 4]       ; the old one, if the new one is refused
        mov     [VCPU(dr) + edx * 4], eax
        mov     ebx, [VCPU(dr) + 7 * 4]
        xor     ecx, ecx
.next:
        test    bl, 3                           ; enabled?
        jz      .possible
        mov     esi, [VCPU(dr) + 7 * 4]
        shl     ecx, 2
        shr     esi, cl
        shr     ecx, 2
        test    esi, 3 << 16                    ; not on execution
        jnz     .impossible
        cmp     dword [VCPU(dr) + ecx * 4], VMM_BASE
        jae     .impossible
.possible:
        shr     ebx, 2
        inc     ecx
        cmp     ecx, 4
        jb      .next
        cmp     edx, 6
        je      .done
        ja      .control
        jmp     [.writers + edx * 4]
        align   4
.writers:
        dd      .first, .second, .third, .fourth
.first:
        mov     dr0, eax
        jmp     .done
.second:
        mov     dr1, eax
        jmp     .done
.third:
        mov     dr2, eax
        jmp     .done
.fourth:
        mov     dr3, eax
        jmp     .done
.control:
        and     eax, 0xFF                       ; only which breakpoints there are
        mov     dr7, eax
.done:
        FINISH  emulate_control_register
.impossible:
        mov     [VCPU(dr) + edx * 4], edi
        jmp     refuse

; RDTSC where CR4.TSD made it trap.
        align 16
read_time_stamp:
        DECODED
        test    dword [VCPU(cr4)], CR4_TSD
        jz      .permitted
        cmp     dword [VCPU(cpl)], 0
        jne     fault_gp_zero
.permitted:
        rdtsc
        jmp     store_pair

; RDPMC, which traps in ring 1 and, since the processor's CR4.PCE stays clear, in ring 3.
        align 16
read_performance:
        DECODED
        cmp     dword [VCPU(cpl)], 0
        je      .permitted
        test    dword [VCPU(cr4)], CR4_PCE
        jz      fault_gp_zero
.permitted:
        mov     ecx, [ebp + F_ECX]
        cmp     ecx, 1
        ja      refuse                          ; which others there are differs between processors
        rdpmc
store_pair:
        mov     [ebp + F_EAX], eax
        mov     [ebp + F_EDX], edx
        FINISH  emulate_msr

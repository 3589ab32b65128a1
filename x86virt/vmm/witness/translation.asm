; Callouts of translated code, and the way between the translation cache and the guest.
;
; The translator's own tables (sites, places, entry points) are hash tables and a sorted table in the VMM's region. What
; a callout asks for the first time (a jump to be chained, a target for the hash table, a unit that is not there) is the
; translator's work, and left to a slower path.

; How the guest's state is had at a place of the cache: the word of a row.
SPILLED_EAX equ 1 << 0
SPILLED_ECX equ 1 << 1
SPILLED_EDX equ 1 << 2
HELD        equ 1 << 3          ; an STI has just completed
UNSTORED    equ 1 << 4          ; ECX is the new virtual interrupt flag
FROM_TARGET equ 1 << 5          ; EIP is in the record's `target`
SLOWER      equ 1 << 6
KIND_SHIFT  equ 8               ; of a site: why it calls
RELEASE_SHIFT equ 16            ; what must still be added to ESP

; A trap came from the cache: make the frame the guest's.
        align 16
leave_cache:
        cmp     dword [ebp + F_VECTOR], CALLOUT_VECTOR
        jne     recover
        mov     eax, [ebp + F_EIP]
        sub     eax, 2                          ; INT n

; EAX the address of the callout's site.
find_site:
        BEGIN
        mov     ecx, eax
        shr     ecx, 1
.next:
        and     ecx, N_SITES - 1
        lea     esi, [ecx + ecx * 2]
        cmp     [VMM_BASE + SITES + esi * 4], eax
        je      .found
        cmp     dword [VMM_BASE + SITES + esi * 4], 0
        je      refuse
        inc     ecx
        jmp     .next
.found:
        mov     eax, [VMM_BASE + SITES + esi * 4 + 4]
        mov     edx, [VMM_BASE + SITES + esi * 4 + 8]
        call    apply_recovery
        mov     ecx, edx
        shr     ecx, KIND_SHIFT
        and     ecx, 0xFF
        mov     [site_kind], ecx
        END_PATH callout
        ret

; A fault or an interrupt: the last row of the sorted table whose address is not above EIP.
recover:
        BEGIN
        mov     eax, [ebp + F_EIP]
        xor     esi, esi
        mov     edi, [TABLES(place_count)]
.halve:
        lea     ecx, [esi + edi]
        shr     ecx, 1
        cmp     ecx, esi
        je      .found
        lea     edx, [ecx + ecx * 2]
        cmp     [VMM_BASE + PLACES + edx * 4], eax
        ja      .lower
        mov     esi, ecx
        jmp     .halve
.lower:
        mov     edi, ecx
        jmp     .halve
.found:
        lea     esi, [esi + esi * 2]
        mov     eax, [VMM_BASE + PLACES + esi * 4 + 4]
        mov     edx, [VMM_BASE + PLACES + esi * 4 + 8]
        call    apply_recovery
        END_PATH recover
        ret

; EAX the guest's EIP, EDX the word of the row. Keeps EDX.
        align 16
apply_recovery:
        test    edx, SLOWER
        jnz     refuse
        test    edx, FROM_TARGET
        jz      .eip
        mov     eax, [TRANSLATED(target)]
.eip:
        mov     [ebp + F_EIP], eax
        mov     ecx, [TRANSLATED(interrupt_flag)]
        test    edx, UNSTORED
        jz      .flag
        mov     ecx, [ebp + F_ECX]
.flag:
        shr     ecx, 9
        and     ecx, 1
        mov     [VCPU(interrupt_flag)], ecx
        test    dl, SPILLED_EAX | SPILLED_ECX | SPILLED_EDX | HELD
        jz      .stack
        test    dl, SPILLED_EAX
        jz      .no_eax
        mov     ecx, [TRANSLATED(saved_eax)]
        mov     [ebp + F_EAX], ecx
.no_eax:
        test    dl, SPILLED_ECX
        jz      .no_ecx
        mov     ecx, [TRANSLATED(saved_ecx)]
        mov     [ebp + F_ECX], ecx
.no_ecx:
        test    dl, SPILLED_EDX
        jz      .no_edx
        mov     ecx, [TRANSLATED(saved_edx)]
        mov     [ebp + F_EDX], ecx
.no_edx:
        test    dl, HELD
        jz      .stack
        mov     dword [VCPU(interrupt_shadow)], 1
.stack:
        mov     ecx, edx
        shr     ecx, RELEASE_SHIFT
        add     [ebp + F_ESP], ecx
        mov     ecx, [TRANSLATED(guest_cs)]
        mov     [ebp + F_CS], ecx
        mov     ecx, [TRANSLATED(selectors) + 5 * 4]
        mov     [ebp + F_GS], ecx
        ret

; What the site asks for.
        align 16
callout:
        mov     eax, [site_kind]
        jmp     [.kinds + eax * 4]
        align   4
.kinds:
        dd      emulate                         ; a sensitive instruction
        dd      open_window                     ; IF was set while an interrupt waits: resuming delivers it
        dd      traced_write
        dd      refuse

open_window:
        ret

; A callout that stays in ring 1. The common code of the cache has put the guest's flags and general registers on the
; callout's stack, above which there is room for the rest of a trap's frame.
        align 16
light_entry:
        BEGIN
        push    ds
        push    es
        push    fs
        push    gs
        mov     eax, TRANSLATOR_DATA_SELECTOR | GUEST_RING
        mov     ds, eax
        mov     es, eax
        cld
        mov     ebp, esp
        mov     eax, [ebp + F_VECTOR]           ; where PUSHF has put the flags
        mov     ecx, [TRANSLATED(guest_esp)]
        mov     edx, [TRANSLATED(guest_ss)]
        mov     [ebp + F_EFLAGS], eax
        mov     [ebp + F_ESP], ecx
        mov     [ebp + F_SS], edx
        mov     dword [ebp + F_VECTOR], CALLOUT_VECTOR
        mov     eax, [TRANSLATED(site)]
        call    find_site
        call    callout
        cmp     dword [DEVICE(pending)], 0
        jne     .pending
.back:
        mov     eax, [ebp + F_EIP]
        mov     [TRANSLATED(resume_eip)], eax
        call    enter_cache
        mov     eax, [ebp + F_EIP]
        mov     ecx, [ebp + F_ESP]
        mov     edx, [ebp + F_EFLAGS]
        mov     [TRANSLATED(jump)], eax
        mov     [TRANSLATED(guest_esp)], ecx
        mov     [ebp + F_VECTOR], edx
..@light_restoring:
        add     esp, 8                          ; FS is as it was, GS stays the VMM's
        pop     es
        pop     ds
        END_PATH light_dispatch
..@light_restored:
.pending:                                       ; it is delivered from ring 0
        cmp     dword [VCPU(interrupt_flag)], 0
        je      .back
        jmp     refuse

; -- direct callouts --------------------------------------------------------------------------------------------------------
; The translator has left in the record what it decoded; the common code of the cache has saved EAX, ECX, EDX and the arithmetic
; flags there and loaded the callout's stack. The guest's data segments stay loaded: the VMM's memory is reached through SS.

; Behind the site, unless an interrupt is to be delivered first. Uses EAX, ECX.
%macro DIRECT_RETURN 1
        mov     eax, [ss:DEVICE(pending)]
        test    eax, eax
        jnz     %%pending
%%back:
        mov     ecx, [ss:TRANSLATED(site)]
        mov     [ss:TRANSLATED(pending)], eax
        add     ecx, DIRECT_SITE_BYTES
        mov     [ss:TRANSLATED(jump)], ecx
        pop     edi
        pop     esi
        pop     ebx
        END_PATH %1
%%pending:
        cmp     dword [ss:TRANSLATED(interrupt_flag)], 0
        je      %%back
        jmp     refuse
%endmacro

; IN or OUT of the guest's kernel, to which CPL 0 opens every port.
        align 16
direct_port:
        BEGIN
        push    ebx
        push    esi
        push    edi
        mov     ebx, [ss:TRANSLATED(operands)]
        movzx   edx, bx
        test    ebx, OPERANDS_IN_DX
        jz      .port
        movzx   edx, word [ss:TRANSLATED(saved_edx)]
.port:
        test    ebx, OPERANDS_OUT
        jnz     .out
        shr     ebx, OPERANDS_BYTES_SHIFT
        and     ebx, 7
        call    device_in
        cmp     ebx, 2
        ja      .whole
        je      .word
        mov     [ss:TRANSLATED(saved_eax)], al
        jmp     .done
.word:
        mov     [ss:TRANSLATED(saved_eax)], ax
        jmp     .done
.whole:
        mov     [ss:TRANSLATED(saved_eax)], eax
        jmp     .done
.out:
        shr     ebx, OPERANDS_BYTES_SHIFT
        and     ebx, 7
        mov     eax, [ss:TRANSLATED(saved_eax)]
        call    device_out
.done:
        DIRECT_RETURN direct_port

; A store of the guest's kernel that often writes traced memory.
        align 16
direct_store:
        BEGIN
        push    ebx
        push    esi
        push    edi
        ; 1. The operand in its segment, which is writable, not expand-down, and in the guest's GDT.
        mov     esi, [ss:TRANSLATED(operands)]
        mov     ecx, ds
        test    esi, OPERANDS_IN_STACK
        jz      .segment
        mov     ecx, [ss:TRANSLATED(guest_ss)]
.segment:
        test    cl, 4
        jnz     refuse
        and     ecx, 0xFFF8
        jz      refuse
        mov     edx, [ss:VMM_BASE + GDT + ecx + 4]
        mov     ebx, [ss:VMM_BASE + GDT + ecx]
        test    edx, edx
        jz      .gone                           ; from the shadow: as for `loaded_descriptor`
.have:
        mov     eax, edx
        and     eax, HIGH_CODE | HIGH_EXPAND | HIGH_WRITABLE
        cmp     eax, HIGH_WRITABLE
        jne     refuse
        shr     esi, OPERANDS_BYTES_SHIFT
        mov     eax, ebx
        and     esi, 7
        call    limit_of
        mov     edi, [ss:TRANSLATED(operand_offset)]
        lea     ecx, [edi + esi - 1]
        cmp     ecx, edi
        jb      refuse
        cmp     ecx, eax
        ja      refuse
        mov     eax, ebx
        call    base_of
        lea     ebx, [eax + edi]
        ; 2. Within one page, as the guest's tables permit.
        lea     eax, [ebx + esi - 1]
        xor     eax, ebx
        test    eax, 0xFFFFF000
        jnz     refuse
        mov     edx, 2 | WALK_MARK
        push    esi
        call    walk
        jc      refuse
        call    window
        pop     esi
        ; 3. The store.
        mov     eax, [ss:TRANSLATED(operand_value)]
        cmp     esi, 1
        je      .byte
        mov     [ss:edi], eax
        DIRECT_RETURN direct_store
.gone:
        lea     eax, [ecx + 7]
        cmp     eax, [ss:VCPU(gdtr_limit)]
        ja      refuse
        mov     eax, [ss:VCPU(gdtr_base)]
        mov     edx, [ss:eax + ecx + 4]
        mov     ebx, [ss:eax + ecx]
        jmp     .have
.byte:
        mov     [ss:edi], al
        DIRECT_RETURN direct_store

; Serving a callout in ring 1, the VMM needs ring 0 for the way on. A software interrupt has come here; the callout's frame
; moves to the stack of ring 0.
        align 16
leave_ring:
        BEGIN
        mov     eax, VMM_DATA_SELECTOR
        mov     ds, eax
        mov     es, eax
        mov     esi, VMM_BASE + CALLOUT_STACK_TOP - F_ERROR
        mov     edi, VMM_BASE + STACK_TOP - F_BYTES
        mov     ecx, F_BYTES / 4
        mov     esp, edi
        cld
        rep movsd
        mov     ebp, esp
        ; Here is what ring 0 is needed for. From there the guest goes on as from any trap: what the way back within ring 1
        ; leaves alone, or leaves to the common code of the cache, is loaded from the frame.
        pop     gs
        pop     fs
        add     esp, 8                          ; ES and DS: as on that way
        popad
        END_PATH leave_ring

; The guest is about to go on in the cache: refresh the record, and put the address of its translation in the frame.
        align 16
enter_cache:
        BEGIN
        ; 1. What the unit depends on besides its bytes.
        cmp     dword [VCPU(interrupt_shadow)], 0
        jne     refuse                          ; a unit of one instruction
        test    dword [ebp + F_EFLAGS], EFLAGS_TF
        jnz     refuse
        mov     eax, [ebp + F_CS]
        mov     ecx, [VCPU(iopl)]
        cmp     [TABLES(context_cs)], eax
        jne     refuse
        cmp     [TABLES(context_iopl)], ecx
        jne     refuse
        ; 2. The selectors, as the guest has them and as the hardware holds them.
        mov     [TRANSLATED(guest_cs)], eax
        call    virtual_selector
        mov     [TRANSLATED(selectors) + 1 * 4], eax
        mov     eax, [ebp + F_SS]
        mov     [TRANSLATED(guest_ss)], eax
        call    virtual_selector
        mov     ecx, [ebp + F_ES]
        mov     edx, [ebp + F_DS]
        mov     [TRANSLATED(selectors) + 2 * 4], eax
        mov     [TRANSLATED(selectors) + 0 * 4], ecx
        mov     [TRANSLATED(selectors) + 3 * 4], edx
        mov     ecx, [ebp + F_FS]
        mov     eax, [ebp + F_GS]
        mov     [TRANSLATED(selectors) + 4 * 4], ecx
        ; 3. The guest's GS, in a descriptor of the VMM's, unless it is as it was.
        cmp     eax, [TRANSLATED(selectors) + 5 * 4]
        je      .same_gs
        mov     [TRANSLATED(selectors) + 5 * 4], eax
        xor     edi, edi
        test    eax, 0xFFFC
        jz      .gs
        call    loaded_descriptor
        and     edx, ~(3 << 13)
        or      edx, GUEST_RING << 13
        test    edx, HIGH_CODE
        jz      .data
        and     edx, ~HIGH_EXPAND               ; not conforming
.data:
        mov     [VMM_BASE + GDT + GUEST_GS_SELECTOR], eax
        mov     [VMM_BASE + GDT + GUEST_GS_SELECTOR + 4], edx
        mov     edi, GUEST_GS_SELECTOR | GUEST_RING
.gs:
        mov     [TRANSLATED(guest_gs)], edi
.same_gs:
        ; 4. The virtual interrupt flag, and whether an interrupt waits for it.
        mov     eax, [VCPU(interrupt_flag)]
        mov     ecx, [DEVICE(pending)]
        shl     eax, 9
        mov     [TRANSLATED(pending)], ecx
        mov     [TRANSLATED(interrupt_flag)], eax
        ; 5. Where the guest's next instruction stands in the cache.
        mov     eax, [ebp + F_EIP]
        mov     ecx, eax
.next:
        and     ecx, N_ENTRY_POINTS - 1
        cmp     [VMM_BASE + ENTRY_POINTS + ecx * 8], eax
        je      .found
        cmp     dword [VMM_BASE + ENTRY_POINTS + ecx * 8 + 4], 0
        je      refuse                          ; to be translated
        inc     ecx
        jmp     .next
.found:
        mov     eax, [VMM_BASE + ENTRY_POINTS + ecx * 8 + 4]
        test    eax, eax
        jz      refuse
        mov     [ebp + F_EIP], eax
        mov     dword [ebp + F_CS], TRANSLATED_CODE_SELECTOR | GUEST_RING
        END_PATH enter_cache
        ret

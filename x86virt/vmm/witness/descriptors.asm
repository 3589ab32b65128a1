; The guest's segment descriptors.
;
; What the processor loads is a shadow of the guest's table: DPL 0 raised to the ring in which the guest's kernel
; really runs, the limit cut off below the VMM, the accessed bit set. A selector that the processor holds has the RPL of
; that ring, and is decompressed to the guest's own when the guest is to see it.

; EAX a selector that the hardware holds -> EAX the guest's. Uses ECX.
        align 16
virtual_selector:
        mov     ecx, eax
        and     ecx, 0xFFF8
        cmp     ecx, FIRST_VMM_SELECTOR
        jae     .detached
        cmp     dword [VCPU(cpl)], 0
        jne     .same
        mov     ecx, eax
        and     ecx, 3
        cmp     ecx, GUEST_RING
        jne     .same
        and     eax, ~3
.same:
        ret
.detached:                              ; what CS and SS were loaded from is no longer in the guest's table
        cmp     ecx, DETACHED_CODE_SELECTOR
        je      .code
        cmp     ecx, DETACHED_STACK_SELECTOR
        je      .stack
        xor     eax, eax
        ret
.code:
        mov     eax, [VCPU(detached_cs)]
        ret
.stack:
        mov     eax, [VCPU(detached_ss)]
        ret

; EAX a guest selector for CS or SS -> EAX what the hardware holds for it.
hardware_selector:
        test    al, 3
        jnz     .same
        or      eax, GUEST_RING
.same:
        ret

; EAX a hardware selector -> EAX, EDX the descriptor in the shadow. A register may outlive its descriptor there; the
; guest's own table has it then, unless the guest changed that too (a copy of every loaded descriptor would tell).
; Uses ECX.
loaded_descriptor:
        mov     ecx, eax
        and     ecx, 0xFFF8
        mov     edx, [VMM_BASE + GDT + ecx + 4]
        mov     eax, [VMM_BASE + GDT + ecx]
        test    edx, edx
        jz      .gone
        ret
.gone:
        push    esi
        call    guest_descriptor
        pop     esi
        jc      refuse
        ret

; EAX a hardware selector -> EAX the segment's base, EDX its high doubleword: the shadow has the guest's base.
segment_base:
        call    loaded_descriptor
base_of:
        shr     eax, 16
        mov     ecx, edx
        and     ecx, 0xFF
        shl     ecx, 16
        or      eax, ecx
        mov     ecx, edx
        and     ecx, 0xFF000000
        or      eax, ecx
        ret

; ECX a guest selector -> ESI the linear address of its descriptor, EAX and EDX its doublewords; carry if the table does
; not hold it.
        align 16
guest_descriptor:
        mov     edx, ecx
        and     edx, 0xFFF8
        test    cl, 4
        jnz     .local
        mov     eax, [VCPU(gdtr_limit)]
        mov     esi, [VCPU(gdtr_base)]
.check:
        add     esi, edx
        add     edx, 7
        cmp     eax, edx
        jb      .beyond
        mov     eax, [esi]
        mov     edx, [esi + 4]
        clc
.beyond:
        ret
.local:
        mov     eax, [VCPU(ldtr_limit)]
        mov     esi, [VCPU(ldtr_base)]
        test    dword [VCPU(ldtr)], 0xFFFC
        jnz     .check
        stc
        ret

; EAX and EDX a descriptor -> EAX its limit in bytes. Uses ECX.
limit_of:
        and     eax, 0xFFFF
        mov     ecx, edx
        and     ecx, 0xF0000
        or      eax, ecx
        test    edx, HIGH_G
        jz      .bytes
        shl     eax, 12
        or      eax, 0xFFF
.bytes:
        ret

; ESI the linear address of a descriptor, EDX its high doubleword: set the accessed bit in the guest's table, as a load
; does. The table is traced, so that it is written through a window. Uses EAX, EBX, ECX, EDX, EDI.
mark_accessed:
        test    edx, HIGH_ACCESSED
        jnz     .done
        or      edx, HIGH_ACCESSED
        push    edx
        push    esi
        lea     ebx, [esi + 4]
        mov     edx, 2 | WALK_MARK
        call    walk
        jc      refuse
        call    window
        pop     esi
        pop     edx
        mov     [edi], edx
.done:
        ret

; ECX a guest selector, EBX the CPL that SS is loaded at: RPL = CPL = DPL, writable data, present. -> as
; guest_descriptor; carry: it fails, EAX the vector (#SS if not present, else 0: the caller's choice), EDX the selector.
        align 16
check_stack:
        test    ecx, 0xFFFC
        jz      .null
        push    ecx
        call    guest_descriptor
        pop     ecx
        jc      .fault
        mov     edi, ecx
        and     edi, 3
        cmp     edi, ebx
        jne     .fault
        mov     edi, edx
        and     edi, HIGH_SEGMENT | HIGH_CODE | HIGH_WRITABLE
        cmp     edi, HIGH_SEGMENT | HIGH_WRITABLE
        jne     .fault
        mov     edi, edx
        shr     edi, 13
        and     edi, 3
        cmp     edi, ebx
        jne     .fault
        test    edx, HIGH_PRESENT
        jz      .absent
        clc
        ret
.absent:
        mov     eax, VECTOR_SS
        jmp     .selector
.fault:
        xor     eax, eax
.selector:
        mov     edx, ecx
        and     edx, 0xFFFC
        stc
        ret
.null:
        xor     eax, eax
        xor     edx, edx
        stc
        ret

; EAX a virtual CPL. Ring 3 code is present in the shadow only while the guest is in ring 3, so that a return to it from
; the guest's kernel traps. Uses ECX, EDX, EDI.
        align 16
set_virtual_cpl:
        cmp     eax, [VCPU(cpl)]
        je      .done
        mov     [VCPU(cpl)], eax
        mov     ecx, [VCPU(user_code_count)]
        test    ecx, ecx
        jz      .done
.next:
        mov     edi, [VCPU(user_code) + ecx * 4 - 4]
        mov     edx, [VMM_BASE + GDT + edi * 8 + 4]
        and     edx, ~HIGH_PRESENT
        cmp     eax, 3
        jne     .store
        or      edx, HIGH_PRESENT
.store:
        mov     [VMM_BASE + GDT + edi * 8 + 4], edx
        dec     ecx
        jnz     .next
.done:
        ret

; EAX a selector that the hardware is about to load: see that the shadow has its descriptor. Carry: it was there already
; or cannot be had. Uses all but EBP.
        align 16
install:
        test    al, 4
        jnz     .no
        mov     ecx, eax
        and     ecx, 0xFFF8
        cmp     ecx, FIRST_VMM_SELECTOR
        jae     .no
        cmp     dword [VMM_BASE + GDT + ecx + 4], 0
        jne     .no
        mov     [items], eax
        mov     eax, 1
        jmp     shadow_items
.no:
        stc
        ret

; EAX the number of selectors in `items`, none of them in the shadow yet: shadow their descriptors. Carry if the last one
; cannot be.
        align 16
shadow_items:
        BEGIN
        push    dword 0
        push    eax
.next:
        mov     ecx, [esp + 4]
        mov     ecx, [items + ecx * 4]
        call    shadow_descriptor
        inc     dword [esp + 4]
        dec     dword [esp]
        jnz     .next
        pop     eax                             ; does not touch the carry
        pop     eax
        END_PATH descriptor_shadow
        ret

; ECX a guest selector -> carry if its descriptor cannot be shadowed.
shadow_descriptor:
        call    guest_descriptor
        jc      .no
        mov     edi, edx
        and     edi, HIGH_SEGMENT | HIGH_PRESENT
        cmp     edi, HIGH_SEGMENT | HIGH_PRESENT
        jne     .no
        mov     edi, edx
        and     edi, HIGH_CODE | HIGH_EXPAND
        cmp     edi, HIGH_EXPAND
        je      refuse                          ; expand-down data reaches upwards, to the VMM
        push    eax
        push    ecx
        call    mark_accessed
        pop     ecx
        pop     eax
        or      edx, HIGH_ACCESSED
        push    esi
        push    ecx
        ; 1. Ring 3 code is remembered, and hidden while the guest's kernel runs.
        mov     edi, edx
        and     edi, HIGH_CODE | 3 << 13
        cmp     edi, HIGH_CODE | 3 << 13
        je      .user_code
        ; 2. DPL: at least the guest kernel's ring.
        test    edx, 3 << 13
        jnz     .limit
        or      edx, GUEST_RING << 13
        jmp     .limit
.user_code:
        mov     edi, [VCPU(user_code_count)]
        cmp     edi, MAX_USER_CODE
        jae     refuse
        and     ecx, 0xFFF8
        shr     ecx, 3
        mov     [VCPU(user_code) + edi * 4], ecx
        inc     dword [VCPU(user_code_count)]
        cmp     dword [VCPU(cpl)], 3
        je      .limit
        and     edx, ~HIGH_PRESENT
.limit:
        ; 3. The limit ends below the VMM, in whole pages beyond 1 MB.
        mov     edi, eax                        ; the low doubleword
        call    base_of
        mov     ebx, eax
        mov     eax, edi
        call    limit_of
        mov     ecx, VMM_BASE - 1
        sub     ecx, ebx
        jae     .room
        xor     ecx, ecx
.room:
        cmp     eax, ecx
        jbe     .encode
        mov     eax, ecx
        cmp     eax, 1 << 20
        jb      .encode
        inc     eax
        and     eax, 0xFFFFF000
        dec     eax
.encode:
        and     edx, ~(HIGH_G | 0xF0000)
        cmp     eax, 1 << 20
        jb      .byte_granular
        shr     eax, 12
        or      edx, HIGH_G
.byte_granular:
        mov     ecx, eax
        and     eax, 0xFFFF
        and     ecx, 0xF0000
        or      edx, ecx
        and     edi, 0xFFFF0000
        or      edi, eax
        ; 4. Into the shadow.
        pop     ecx
        and     ecx, 0xFFF8
        mov     [VMM_BASE + GDT + ecx], edi
        mov     [VMM_BASE + GDT + ecx + 4], edx
        inc     dword [VCPU(installed_count)]
        ; 5. The frames that hold the guest's descriptor are traced.
        pop     ebx
        call    trace
        mov     eax, ebx
        add     ebx, 7
        xor     eax, ebx
        test    eax, 0xFFFFF000
        jz      .one_page
        call    trace
.one_page:
        clc
        ret
.no:
        stc
        ret

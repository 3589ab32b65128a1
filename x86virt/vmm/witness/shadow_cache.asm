; Shadow page tables that are kept: the cache of address spaces, and the comparison with the guest's tables.
;
; The control record says what each page of the pool is the shadow of; pages are found by the guest frame that they
; follow. These routines are measured by themselves, since the policy `drop` does without them.

; MOV CR3 of the guest, or another paging mode: EAX the CR3 that the processor is to load. Refused where the address space
; has no shadow yet, or where page tables are out of sync. Uses EBX, ECX, EDX.
        align 16
shadow_switch:
        BEGIN
        cmp     dword [CONTROL(unsync_count)], 0
        jne     refuse
        ; 1. The modes of the guest's paging.
        mov     eax, [VCPU(cr0)]
        test    eax, eax                        ; PG is bit 31
        jns     refuse
        mov     ebx, MODE_PG
        test    eax, CR0_WP
        jz      .no_wp
        or      ebx, MODE_WP
.no_wp:
        mov     eax, [VCPU(cr4)]
        test    eax, CR4_PAE
        jnz     refuse
        test    eax, CR4_PSE
        jz      .no_pse
        or      ebx, MODE_PSE
.no_pse:
        test    eax, CR4_PGE
        jz      .no_pge
        or      ebx, MODE_PGE
.no_pge:
        cmp     ebx, [CONTROL(mode)]
        jne     refuse
        ; 2. The directory that follows the guest's in these modes.
        mov     eax, [VCPU(cr3)]
        shr     eax, 12
        mov     ecx, eax
        and     ecx, N_BUCKETS - 1
        mov     ecx, [CONTROL(buckets) + ecx * 8]
.next:
        test    ecx, ecx
        jz      refuse
        imul    edx, ecx, PAGE_BYTES
        add     edx, CONTROL(pages) - PAGE_BYTES
        cmp     [edx + PAGE_frame], eax
        jne     .other
        cmp     dword [edx + PAGE_kind], KIND_ROOT
        jne     .other
        cmp     [edx + PAGE_role], ebx
        je      .found
.other:
        mov     ecx, [edx + PAGE_following]
        jmp     .next
.found:
        mov     dword [edx + PAGE_used], 1
        dec     ecx
        mov     [CONTROL(root)], ecx
        shl     ecx, 12
        lea     eax, [ecx + SHADOW]
        END_PATH shadow_switch
        ret

; ESI a shadow page table (linear), EAX the guest's (guest-physical), EDX what the directory entry above permits: drop every
; entry that permits more than the guest's does now. Uses EAX, EBX, ECX, EDX, EDI.
        align 16
shadow_sync:
        BEGIN
        mov     [compare_above], edx
        mov     edx, 1024
        xor     ecx, ecx
        call    compare_entries
        END_PATH shadow_sync
        ret

; The same for one entry, whose index is ECX.
        align 16
shadow_check:
        BEGIN
        mov     [compare_above], edx
        lea     edx, [ecx + 1]
        call    compare_entries
        END_PATH shadow_check
        ret

; The same from the index in ECX to before that in EDX, `compare_above` holding what is permitted above.
        align 16
compare_entries:
        push    ebp
        push    edx
        push    ecx
        call    window
        pop     ecx
        pop     edx
.next:
        mov     ebx, [esi + ecx * 4]
        test    bl, PTE_P
        jnz     .compare
.agrees:
        inc     ecx
        cmp     ecx, edx
        jb      .next
        pop     ebp
        ret
.compare:
        mov     eax, [edi + ecx * 4]
        ; 1. Present and accessed, and the same frame.
        mov     ebp, eax
        not     ebp
        test    ebp, PTE_P | PTE_A
        jnz     .drop
        shr     eax, 12
        cmp     eax, [VCPU(guest_frames)]
        jae     .drop
        mov     eax, [VMM_BASE + P2M + eax * 4]
        shl     eax, 12
        xor     eax, ebx
        test    eax, 0xFFFFF000
        jnz     .drop
        ; 2. What the entry permits and the guest's does not: the global bit and the dirty bit of its own, R/W and U/S of
        ;    both levels. EBP holds what the guest's lacks.
        mov     eax, [compare_above]
        not     eax
        and     eax, PTE_RW | PTE_US
        or      eax, ebp
        and     eax, ebx
        test    eax, PTE_G | PTE_US
        jnz     .drop
        test    bl, PTE_RW
        jz      .agrees
        test    ebp, PTE_D
        jnz     .drop
        test    al, PTE_RW
        jz      .agrees
        ; 3. Writable by WP = 0 alone: for the supervisor.
        test    bl, PTE_US
        jnz     .drop
        test    dword [VCPU(cr0)], CR0_WP
        jz      .agrees
.drop:
        mov     dword [esi + ecx * 4], 0
        jmp     .agrees

; Each to be measured by itself.
shadow_switch_alone:
        mov     ecx, VMM_DATA_SELECTOR
        mov     ds, ecx
        mov     es, ecx
        call    shadow_switch
        END_PATH trap_dispatch
shadow_sync_alone:
        mov     ecx, VMM_DATA_SELECTOR
        mov     ds, ecx
        mov     es, ecx
        call    shadow_sync
        END_PATH trap_dispatch
shadow_check_alone:
        mov     ebx, VMM_DATA_SELECTOR
        mov     ds, ebx
        mov     es, ebx
        call    shadow_check
        END_PATH trap_dispatch

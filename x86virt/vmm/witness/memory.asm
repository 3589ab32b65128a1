; Guest-physical memory, the guest's page tables, and their shadow.
;
; The guest's frames lie anywhere in machine RAM; the p2m says where. To touch a guest-physical address the VMM maps its
; machine frame in one of its windows. Windows are kept as a direct-mapped cache, so that page tables that are walked
; again and again are already mapped: one comparison with the tag, and the address is there. Windows and walks reach the
; VMM's memory through SS, so that they serve where the guest's data segments stay loaded.

; EAX a guest-physical address -> EDI its linear address in a window. Uses ECX, EDX. Beyond RAM: refused.
        align 16
window:
        mov     edx, eax
        shr     edx, 12
        mov     ecx, edx
        and     ecx, N_WINDOWS - 1
        inc     edx                             ; a tag of 0 is an empty window
        cmp     [ss:VCPU(window_tags) + ecx * 4], edx
        jne     .miss
.hit:
        mov     edi, eax
        shl     ecx, 12
        and     edi, 0xFFF
        lea     edi, [edi + ecx + VMM_BASE + WINDOWS]
        ret
.miss:
        cmp     edx, [ss:VCPU(guest_frames)]
        ja      refuse
        push    eax
        mov     eax, cs
        test    al, 3
        pop     eax
        jnz     refuse                          ; INVLPG needs ring 0: a slower path
        mov     [ss:VCPU(window_tags) + ecx * 4], edx
        mov     edx, [ss:VMM_BASE + P2M + edx * 4 - 4]
        shl     edx, 12
        or      edx, PTE_P | PTE_RW | PTE_A | PTE_D | PTE_G
        mov     [ss:VMM_BASE + REGION_TABLE + (WINDOWS >> 10) + ecx * 4], edx
        mov     edx, ecx
        shl     edx, 12
        invlpg  [edx + VMM_BASE + WINDOWS]
        jmp     .hit

; The walk of the guest's tables: EBX a linear address, EDX the access (error code bits W = 2, U = 4; bit 8: mark).
; -> EAX the guest-physical address, EDX the rights (PTE_RW | PTE_US), ECX PTE_D if the leaf is dirty now,
;    [walk_accessed]; carry: a page fault whose error code is EAX. Uses ESI, EDI.
WALK_MARK equ 1 << 8

        align 16
walk:
        mov     eax, [ss:VCPU(cr0)]
        test    eax, eax                        ; PG is bit 31
        jns     .unpaged
        push    edx
        mov     eax, [ss:VCPU(cr3)]
        mov     ecx, ebx
        and     eax, 0xFFFFF000
        shr     ecx, 22
        lea     eax, [eax + ecx * 4]
        mov     esi, eax                        ; where the PDE is, guest-physical
        call    window
        mov     eax, [ss:edi]
        test    al, PTE_P
        jz      .not_present
        test    al, PTE_PS
        jz      .small
        test    dword [ss:VCPU(cr4)], CR4_PSE
        jnz     .large
.small:
        push    eax                             ; the PDE
        push    esi
        mov     ecx, ebx
        and     eax, 0xFFFFF000
        shr     ecx, 12
        and     ecx, 0x3FF
        lea     eax, [eax + ecx * 4]
        push    eax                             ; where the PTE is, guest-physical
        call    window
        mov     eax, [ss:edi]
        test    al, PTE_P
        jz      .not_present_small
        mov     ecx, [esp + 8]
        mov     edx, eax
        and     edx, ecx                        ; what both levels permit
        mov     esi, edx
        and     esi, PTE_A
        mov     [ss:walk_accessed], esi
        mov     esi, eax
        and     esi, PTE_G
        mov     [ss:walk_global], esi
        mov     esi, [esp + 12]                 ; the access
        call    permitted
        jc      .refused_small
        test    esi, WALK_MARK
        jz      .small_done
        test    cl, PTE_A
        jz      .mark_directory
.mark_leaf:
        call    mark_bits
        cmp     eax, ecx
        je      .small_done
        mov     [ss:edi], eax
.small_done:
        add     esp, 16
        mov     ecx, eax
        and     ecx, PTE_D
        and     eax, 0xFFFFF000
        mov     edi, ebx
        and     edi, 0xFFF
        or      eax, edi
        and     edx, PTE_RW | PTE_US
        clc
        ret
.mark_directory:                                ; once for each table; the two entries may share a window
        push    eax
        push    edx
        mov     eax, [esp + 12]
        call    window
        or      dword [ss:edi], PTE_A
        mov     eax, [esp + 8]
        call    window
        pop     edx
        pop     eax
        jmp     .mark_leaf

.large:
        test    eax, 0x003FE000                 ; reserved without PSE-36
        jnz     .reserved
        mov     edx, eax
        mov     ecx, eax
        and     ecx, PTE_A
        mov     [ss:walk_accessed], ecx
        mov     ecx, eax
        and     ecx, PTE_G
        mov     [ss:walk_global], ecx
        mov     esi, [esp]
        call    permitted
        jc      .refused
        test    esi, WALK_MARK
        jz      .large_done
        call    mark_bits
        cmp     eax, ecx
        je      .large_done
        mov     [ss:edi], eax
.large_done:
        add     esp, 4
        mov     ecx, eax
        and     ecx, PTE_D
        and     eax, 0xFFC00000
        mov     edi, ebx
        and     edi, 0x3FFFFF
        or      eax, edi
        and     edx, PTE_RW | PTE_US
        clc
        ret

.unpaged:
        mov     eax, ebx
        mov     edx, PTE_RW | PTE_US
        mov     ecx, PTE_D
        mov     dword [ss:walk_accessed], PTE_A
        mov     dword [ss:walk_global], 0
        clc
        ret
.reserved:
        pop     eax
        and     eax, 6
        or      eax, 9                          ; P and RSVD
        stc
        ret
.not_present_small:
        add     esp, 12
.not_present:
        pop     eax
        and     eax, 6
        stc
        ret
.refused_small:
        add     esp, 12
.refused:
        pop     eax
        and     eax, 6
        or      eax, PTE_P
        stc
        ret

; EAX a leaf, ESI the access -> EAX with its accessed and perhaps its dirty bit, ECX as it was.
mark_bits:
        mov     ecx, eax
        or      eax, PTE_A
        test    esi, 2
        jz      .read
        or      eax, PTE_D
.read:
        ret

; EDX combined rights, ESI the access: carry if section 4.6 of SDM volume 3 forbids it.
permitted:
        test    esi, 4
        jnz     .user
        test    esi, 2
        jz      .yes
        test    edx, PTE_RW
        jnz     .yes
        test    dword [ss:VCPU(cr0)], CR0_WP
        jnz     .no
.yes:
        clc
        ret
.user:
        test    edx, PTE_US
        jz      .no
        test    esi, 2
        jz      .yes
        test    edx, PTE_RW
        jnz     .yes
.no:
        stc
        ret

; -- shadow page tables -------------------------------------------------------------------------------------------------

; A page fault. Either the shadow lacks what the guest's tables permit (a hidden fault, which the guest never sees), or
; the guest's own tables refuse, and the fault is the guest's.
        align 16
page_fault:
        BEGIN
        mov     ebx, cr2
        mov     edx, [ebp + F_ERROR]
        mov     [VCPU(trap_gla)], ebx
        and     edx, 6
        or      edx, WALK_MARK
        call    walk
        jc      .guest
        ; 1. Rights. With WP = 0 the guest's kernel may write what is read-only; the processor runs with WP = 1, so that
        ;    such a page is made writable for the supervisor alone.
        mov     esi, eax
        shr     esi, 12                         ; the guest frame
        cmp     esi, [VCPU(guest_frames)]
        jae     refuse
        test    dword [ebp + F_ERROR], 2
        jz      .rights
        test    edx, PTE_RW
        jnz     .rights
        mov     edx, PTE_RW
.rights:
        ; 2. Not writable while the guest's leaf is clean: the first write must come here to set its dirty bit. Nor if
        ;    the frame holds a traced table.
        bt      [VMM_BASE + TRACED], esi
        jc      .traced
        test    ecx, ecx
        jnz     .table
.clean:
        and     edx, ~PTE_RW
        jmp     .table
.traced:
        test    dword [ebp + F_ERROR], 2
        jnz     refuse                          ; a write to it: single-stepped by the VMM
        jmp     .clean
.table:
        ; 3. The shadow table of these 4 MB, a new one if there is none.
        mov     ecx, ebx
        shr     ecx, 22
        mov     eax, [VMM_BASE + SHADOW + ecx * 4]
        test    al, PTE_P
        jz      .allocate
.have:
        and     eax, 0xFFFFF000
        ; 4. The entry.
        mov     ecx, ebx
        shr     ecx, 12
        and     ecx, 0x3FF
        lea     edi, [VMM_BASE + eax + ecx * 4]
        mov     eax, [VMM_BASE + P2M + esi * 4]
        shl     eax, 12
        or      eax, edx
        test    dword [VCPU(cr4)], CR4_PGE
        jz      .local
        or      eax, [walk_global]
.local:
        test    edx, PTE_RW
        jz      .read_only
        or      eax, PTE_P | PTE_A | PTE_D
        mov     [edi], eax
        ; 5. The reverse map: to protect this frame again, the VMM must find the entry that maps it writable.
        mov     ecx, esi
        and     ecx, REVERSE_ENTRIES - 1
        mov     edx, ebx
        and     edx, 0xFFFFF000
        or      edx, [VCPU(reverse_generation)]
        mov     [VMM_BASE + REVERSE + ecx * 8], esi
        mov     [VMM_BASE + REVERSE + ecx * 8 + 4], edx
        END_PATH shadow_fill
        ret
.read_only:
        or      eax, PTE_P | PTE_A
        mov     [edi], eax
        END_PATH shadow_fill
        ret
.allocate:
        BEGIN
        mov     eax, [VCPU(shadow_next)]
        cmp     eax, SHADOW_PAGES
        jae     refuse
        inc     dword [VCPU(shadow_next)]
        shl     eax, 12
        add     eax, SHADOW
        push    ecx
        lea     edi, [VMM_BASE + eax]
        push    eax
        xor     eax, eax
        mov     ecx, 1024
        rep stosd
        pop     eax
        pop     ecx
        mov     edi, eax
        or      edi, PTE_P | PTE_RW | PTE_US | PTE_A
        mov     [VMM_BASE + SHADOW + ecx * 4], edi
        END_PATH shadow_table
        jmp     .have
.guest:
        END_PATH shadow_fill
        mov     [VCPU(cr2)], ebx
        mov     dword [event_vector], VECTOR_PF
        mov     [event_error], eax
        mov     dword [event_has_error], 1
        mov     dword [event_software], 0
        mov     dword [event_exception], 1
        jmp     reflect

; Every guest entry of the shadow goes: the root is cleared but for the VMM's own region, and the tables below it are
; free again. The processor's TLB is flushed by the MOV CR3 that the caller lets follow.
        align 16
shadow_flush:
        BEGIN
        mov     edi, VMM_BASE + SHADOW
        xor     eax, eax
        mov     ecx, 1023
        rep stosd
        mov     dword [edi], REGION_TABLE | PTE_P | PTE_RW | PTE_A      ; the last entry: the top 4 MB
        mov     dword [VCPU(shadow_next)], 1
        mov     eax, [VCPU(reverse_generation)]
        inc     eax
        and     eax, 0xFFF
        mov     [VCPU(reverse_generation)], eax
        ; In the new address space the guest's GDT may lie elsewhere: then its descriptors would have to trap again.
        cmp     dword [VCPU(installed_count)], 0
        je      .done
        mov     ebx, [VCPU(gdtr_base)]
        xor     edx, edx
        call    walk
        jc      refuse
        shr     eax, 12
        bt      [VMM_BASE + TRACED], eax
        jnc     refuse
        cmp     dword [walk_accessed], 0
        je      refuse
.done:
        END_PATH shadow_flush
        ret

; EBX a linear address, of a mapped page: nobody can write through its shadow entry any more. Uses EAX, ECX.
shadow_protect:
        mov     eax, ebx
        shr     eax, 22
        mov     eax, [VMM_BASE + SHADOW + eax * 4]
        and     eax, 0xFFFFF000
        mov     ecx, ebx
        shr     ecx, 12
        and     ecx, 0x3FF
        and     dword [VMM_BASE + eax + ecx * 4], ~(PTE_RW | PTE_D)
        ret

; EBX a linear address: its shadow entry goes. Uses EAX, ECX. The pieces of a large page would all have to go.
shadow_drop:
        test    dword [VCPU(cr4)], CR4_PSE
        jnz     refuse
        mov     eax, ebx
        shr     eax, 22
        cmp     eax, VMM_BASE >> 22
        je      .done
.entry:                                 ; EAX the directory's index
        mov     eax, [VMM_BASE + SHADOW + eax * 4]
        test    al, PTE_P
        jz      .done
        and     eax, 0xFFFFF000
        mov     ecx, ebx
        shr     ecx, 12
        and     ecx, 0x3FF
        mov     dword [VMM_BASE + eax + ecx * 4], 0
.done:
        ret

; EBX a linear address: the frame behind it is traced from now on. A mapping of it that could be written is dropped.
; Keeps EAX, EDX.
trace:
        push    eax
        push    edx
        xor     edx, edx
        call    walk
        jc      refuse
        shr     eax, 12
        bts     [VMM_BASE + TRACED], eax
        jc      .done
        mov     ecx, eax
        and     ecx, REVERSE_ENTRIES - 1
        cmp     [VMM_BASE + REVERSE + ecx * 8], eax
        jne     .done
        mov     edx, [VMM_BASE + REVERSE + ecx * 8 + 4]
        mov     eax, edx
        and     eax, 0xFFF
        cmp     eax, [VCPU(reverse_generation)]
        jne     .done
        push    ebx
        mov     ebx, edx
        and     ebx, 0xFFFFF000
        mov     dword [VMM_BASE + REVERSE + ecx * 8], -1
        call    shadow_protect
        pop     ebx
.done:
        pop     edx
        pop     eax
        ret

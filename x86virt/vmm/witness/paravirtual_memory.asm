; Frames and their types, the guest's page tables, descriptors (paravirtual.asm). The guest's own tables are the processor's.
;
; A table is reached through a window, found by its machine frame; the record of a frame stands in the frame table.

ENTRY_FRAME      equ 0xFFFFF000
ENTRY_DISALLOWED equ 1 << 3 | 1 << 4 | PTE_PS | PTE_G
FRAME_SHIFT      equ 4          ; bytes of a record, as a power of two
TABLE_ENTRIES    equ 1024

; EAX a machine frame, which exists -> EDI its linear address in a window. Uses ECX.
        align 16
pv_window:
        mov     ecx, eax
        lea     edi, [eax + 1]
        and     ecx, N_WINDOWS - 1
        cmp     [VCPU(window_tags) + ecx * 4], edi
        jne     .miss
        shl     ecx, 12
        lea     edi, [ecx + VMM_BASE + WINDOWS]
        ret
.miss:
        mov     [VCPU(window_tags) + ecx * 4], edi
        mov     edi, eax
        shl     edi, 12
        or      edi, PTE_P | PTE_RW | PTE_A | PTE_D | PTE_G
        mov     [VMM_BASE + REGION_TABLE + (WINDOWS >> 10) + ecx * 4], edi
        shl     ecx, 12
        lea     edi, [ecx + VMM_BASE + WINDOWS]
        invlpg  [edi]
        ret

; -- references and types -----------------------------------------------------------------------------------------------

; EAX any number -> a reference to that frame, if it is the domain's at EDX; EDI its record; carry: refused. Uses ECX.
        align 16
pv_get_page:
        cmp     eax, [XEN(n_frames)]
        jae     .refused
        mov     edi, eax
        shl     edi, FRAME_SHIFT
        add     edi, VMM_BASE + PV_FRAME_TABLE
        mov     ecx, [edi + FRAME_count_info]
        test    ecx, PGC_COUNT
        jz      .refused
        inc     ecx
        test    ecx, PGC_COUNT
        jz      .refused                        ; as many as can be counted
        push    eax
        mov     eax, [edi + FRAME_owner]
        cmp     eax, [edx + DOMAIN_domid]
        pop     eax
        jne     .refused
        mov     [edi + FRAME_count_info], ecx
        clc
        ret
.refused:
        stc
        ret

; EDI a frame's record: give a reference back. Uses ECX.
        align 16
pv_put_page:
        mov     ecx, [edi + FRAME_count_info]
        dec     ecx
        mov     [edi + FRAME_count_info], ecx
        test    ecx, PGC_COUNT
        jz      pv_free_frame
        ret

; EDI a frame's record, to which there is a reference; ECX the type wanted: one more use of it. Zero: it is to be looked into
; first; carry: refused. Uses ECX, EAX.
        align 16
pv_begin_type:
        mov     eax, [edi + FRAME_type_info]
        push    ebx
        mov     ebx, eax
        and     ebx, PGT_COUNT
        cmp     ebx, PGT_COUNT
        je      .refused
        push    eax
        and     eax, PGT_TYPE | PGT_PAE_XEN_L2
        cmp     eax, ecx
        pop     eax
        jne     .change
.count:
        inc     eax
        mov     [edi + FRAME_type_info], eax
        pop     ebx
        test    eax, PGT_VALIDATED              ; and no carry
        ret
.change:
        test    ebx, ebx
        jnz     .refused
        mov     ebx, [XEN(flush_clock)]
        inc     ebx
        cmp     [edi + FRAME_flush], ebx
        je      refuse                          ; stale translations: a flush, which is the processor's
        mov     eax, ecx
        cmp     ecx, PGT_WRITABLE
        jne     .count
        or      eax, PGT_VALIDATED
        jmp     .count
.refused:
        pop     ebx
        stc
        ret

; EDI a frame's record: one use less. Zero: that was the last. Uses ECX.
        align 16
pv_drop_type:
        mov     ecx, [edi + FRAME_type_info]
        dec     ecx
        mov     [edi + FRAME_type_info], ecx
        test    ecx, PGT_COUNT
        jz      .last
        ret
.last:
        mov     ecx, [XEN(flush_clock)]
        inc     ecx
        mov     [edi + FRAME_flush], ecx
        xor     ecx, ecx
        ret

; EDI the record of a frame without references: among those that are nobody's.
pv_free_frame:
        push    edx
        push    eax
        mov     eax, [edi + FRAME_owner]
        call    pv_find_domain
        jc      .nobody
        dec     dword [edx + DOMAIN_total_frames]
.nobody:
        mov     eax, [XEN(free_frames)]
        mov     dword [edi + FRAME_owner], NOBODY
        mov     dword [edi + FRAME_count_info], 0
        mov     [edi + FRAME_type_info], eax
        mov     eax, [XEN(flush_clock)]
        inc     eax
        mov     [edi + FRAME_flush], eax
        lea     eax, [edi - (VMM_BASE + PV_FRAME_TABLE)]
        shr     eax, FRAME_SHIFT
        inc     eax
        mov     [XEN(free_frames)], eax
        pop     eax
        pop     edx
        ret

; -- entries of page tables ---------------------------------------------------------------------------------------------

; EBX a present entry: what it needs of its frame; carry: refused. Uses EAX, ECX, EDI.
        align 16
pv_get_l1_entry:
        test    ebx, ENTRY_DISALLOWED
        jnz     .refused
        mov     eax, ebx
        shr     eax, 12
        call    pv_get_page
        jc      .refused
        test    bl, PTE_RW
        jz      .got
        mov     ecx, PGT_WRITABLE
        call    pv_begin_type
        jc      .not_writable
.got:
        clc
        ret
.not_writable:
        dec     dword [edi + FRAME_count_info]
.refused:
        stc
        ret

; EAX a present entry: what it had is given back. Uses EAX, ECX, EDI.
        align 16
pv_put_l1_entry:
        mov     edi, eax
        shr     edi, 12
        shl     edi, FRAME_SHIFT
        add     edi, VMM_BASE + PV_FRAME_TABLE
        test    al, PTE_RW
        jz      pv_put_page
        call    pv_drop_type
        jmp     pv_put_page

; EDI the place of an entry of a page table, EBX what is to stand there; carry: refused. Uses EAX, ECX, EDI.
        align 16
pv_change_l1:
        mov     eax, [edi]
        test    bl, PTE_P
        jz      .write
        mov     ecx, eax
        xor     ecx, ebx
        test    ecx, ENTRY_FRAME | PTE_RW | PTE_P
        jz      .same
        push    eax
        push    edi
        call    pv_get_l1_entry
        pop     edi
        pop     eax
        jc      .refused
.write:
        mov     [edi], ebx
        test    al, PTE_P
        jz      .done
        call    pv_put_l1_entry
.done:
        clc
        ret
.same:                                          ; the same frame, and as writable as before
        test    ebx, ENTRY_DISALLOWED
        jnz     .refused
        mov     [edi], ebx
        clc
        ret
.refused:
        stc
        ret

; EBX a present entry of a directory: its page table, looked into if it was none. Uses EAX, ECX, EDI.
        align 16
pv_get_l2_entry:
        test    ebx, ENTRY_DISALLOWED
        jnz     .refused
        mov     eax, ebx
        shr     eax, 12
        call    pv_get_page
        jc      .refused
        mov     ecx, PGT_L1
        call    pv_begin_type
        jc      refuse                          ; perhaps a directory, in a linear page table
        jnz     .got
        mov     eax, ebx
        shr     eax, 12
        call    pv_validate_l1
        jc      .invalid
.got:
        clc
        ret
.invalid:
        mov     dword [edi + FRAME_type_info], 0
        dec     dword [edi + FRAME_count_info]
.refused:
        stc
        ret

; EAX a present entry of a directory: given back. Uses EAX, ECX, EDI.
        align 16
pv_put_l2_entry:
        mov     edi, eax
        shr     edi, 12
        shl     edi, FRAME_SHIFT
        add     edi, VMM_BASE + PV_FRAME_TABLE
        mov     ecx, [edi + FRAME_type_info]
        and     ecx, PGT_TYPE
        cmp     ecx, PGT_L1
        jne     refuse                          ; a linear page table
        call    pv_drop_type
        jnz     pv_put_page
        and     dword [edi + FRAME_type_info], ~PGT_VALIDATED
        shr     eax, 12
        call    pv_release_l1
        jmp     pv_put_page

; EDI the place of an entry of a directory, EBX what is to stand there; carry: refused. Uses EAX, ECX, EDI.
        align 16
pv_change_l2:
        mov     eax, [edi]
        mov     ecx, edi
        and     ecx, 0xFFF
        shl     ecx, 20
        cmp     ecx, [edx + DOMAIN_virt_start]
        jae     .refused                        ; an entry of the VMM's
        test    bl, PTE_P
        jz      .write
        mov     ecx, eax
        xor     ecx, ebx
        test    ecx, ENTRY_FRAME | PTE_P
        jz      .same
        push    eax
        push    edi
        call    pv_get_l2_entry
        pop     edi
        pop     eax
        jc      .refused
.write:
        mov     [edi], ebx
        test    al, PTE_P
        jz      .done
        call    pv_put_l2_entry
.done:
        clc
        ret
.same:
        test    ebx, ENTRY_DISALLOWED
        jnz     .refused
        mov     [edi], ebx
        clc
        ret
.refused:
        stc
        ret

; -- whole tables -------------------------------------------------------------------------------------------------------

; EAX a frame that is to be a page table: its entries' references; carry: refused. Keeps EDI, EBX.
        align 16
pv_validate_l1:
        push    ebx
        push    edi
        push    esi
        call    pv_window
        mov     esi, edi
        lea     edi, [esi + 4 * TABLE_ENTRIES]
        call    pv_scan_l1
        jc      .invalid
        pop     esi
        pop     edi
        pop     ebx
        or      dword [edi + FRAME_type_info], PGT_VALIDATED
        clc
        ret
.invalid:
        pop     esi
        pop     edi
        pop     ebx
        stc
        ret

; ESI, EDI the first entry and the one behind the last.
        align 16
pv_scan_l1:
        BEGIN
.next:
        mov     ebx, [esi]
        test    bl, PTE_P
        jnz     .present
.counted:
        add     esi, 4
        cmp     esi, edi
        jb      .next
        END_PATH table_scan
        clc
        ret
.present:
        BEGIN
        push    edi
        call    pv_get_l1_entry
        pop     edi
        END_PATH entry_reference
        jnc     .counted
        jmp     refuse                          ; what was taken is to be given back

; EAX a page table that nobody uses any more: what its entries have is given back. Keeps EDI, EBX.
        align 16
pv_release_l1:
        push    esi
        push    edi
        call    pv_window
        mov     esi, edi
        lea     edi, [esi + 4 * TABLE_ENTRIES]
        call    pv_scan_back
        pop     edi
        pop     esi
        ret

        align 16
pv_scan_back:
        BEGIN
.next:
        mov     eax, [esi]
        test    al, PTE_P
        jnz     .present
.counted:
        add     esi, 4
        cmp     esi, edi
        jb      .next
        END_PATH table_scan
        ret
.present:
        BEGIN
        push    edi
        call    pv_put_l1_entry
        pop     edi
        END_PATH entry_reference
        jmp     .counted

; -- mmu_update ---------------------------------------------------------------------------------------------------------

; mmu_update(requests, count, done, domain): entries of tables by their machine addresses, and the table of pseudo-physical
; numbers. Only what the current domain does to itself.
REQUEST_ADDRESS equ 0           ; 64 bits, the two lowest the command
REQUEST_VALUE   equ 8
REQUEST_SHIFT   equ 4

        align 16
pv_mmu_update:
        BEGIN
        mov     esi, [ebx]
        mov     ecx, [ebx + 4]
        cmp     word [ebx + 12], DOMID_SELF
        jne     refuse
        test    ecx, 0xF0000000
        jnz     refuse                          ; goes on from where it was interrupted
        push    ebx
        mov     eax, ecx
        shl     eax, REQUEST_SHIFT
        add     eax, esi
        jc      .fault
        cmp     eax, [edx + DOMAIN_virt_start]
        ja      .fault
        mov     [pv_end], eax
        test    ecx, ecx
        jz      .done
.next:
        mov     ecx, [esi + REQUEST_ADDRESS]
        mov     eax, [esi + REQUEST_ADDRESS + 4]
        mov     ebx, [esi + REQUEST_VALUE]
        test    eax, eax
        jnz     refuse
        mov     eax, ecx
        shr     eax, 12
        and     ecx, 3
        cmp     ecx, MMU_MACHPHYS_UPDATE
        je      .machphys
        call    pv_get_page                     ; of the table
        jc      .invalid
        mov     ecx, [edi + FRAME_type_info]
        test    ecx, PGT_COUNT
        jz      refuse                          ; no table: a frame to be written, or none of these
        push    edi
        and     ecx, PGT_TYPE
        push    ecx
        inc     dword [edi + FRAME_type_info]
        call    pv_window
        mov     eax, [esi + REQUEST_ADDRESS]
        mov     ecx, eax
        and     eax, 0xFFC
        and     ecx, 3
        add     edi, eax
        cmp     ecx, MMU_PT_UPDATE_PRESERVE_AD
        jne     .as_it_is
        mov     eax, [edi]
        and     eax, PTE_A | PTE_D
        or      ebx, eax
.as_it_is:
        pop     ecx
        cmp     ecx, PGT_L1
        jne     .other_level
        call    pv_change_l1
.changed:
        sbb     ebx, ebx                        ; -1: refused
        pop     edi
        call    pv_drop_type
        call    pv_put_page
        test    ebx, ebx
        jnz     .invalid
.one_done:
        test    dword [XEN(asked)], ASK_SCHEDULE
        jnz     refuse                          ; the rest is another time's
        add     esi, 1 << REQUEST_SHIFT
        cmp     esi, [pv_end]
        jb      .next
.done:
        xor     eax, eax
.answer:
        pop     ebx
        push    eax
        mov     eax, [ebx + 8]                  ; where the number of those that were done goes
        sub     esi, [ebx]
        test    eax, eax
        jz      .unwanted
        shr     esi, REQUEST_SHIFT
        lea     ecx, [eax + 4]
        cmp     ecx, [edx + DOMAIN_virt_start]
        ja      refuse
        mov     [eax], esi
.unwanted:
        pop     eax
        END_PATH table_update
        ret

.other_level:
        cmp     ecx, PGT_L2
        jne     refuse
        BEGIN
        call    pv_change_l2
        END_PATH directory_update
        jmp     .changed

.machphys:
        BEGIN
        call    pv_get_page
        jc      .foreign
        mov     [VMM_BASE + PV_MACHPHYS + eax * 4], ebx
        call    pv_put_page
        END_PATH machphys_update
        jmp     .one_done
.foreign:
        END_PATH machphys_update
.invalid:
        mov     eax, -EINVAL
        jmp     .answer
.fault:
        pop     ebx
        mov     eax, -EFAULT
        END_PATH table_update
        ret

; update_va_mapping(address, entry, high half, what to flush): the entry of a page table by what it maps. The flush is the
; processor's.
        align 16
pv_update_va_mapping:
        BEGIN
        mov     eax, [ebx]
        cmp     eax, [edx + DOMAIN_virt_start]
        jae     .invalid
        mov     esi, eax
        mov     ebx, [ebx + 4]
        mov     eax, [edx + DOMAIN_base_frame]
        call    pv_window
        mov     ecx, esi
        shr     ecx, 22
        mov     eax, [edi + ecx * 4]
        test    al, PTE_P
        jz      .invalid
        shr     eax, 12
        mov     ecx, eax
        shl     ecx, FRAME_SHIFT
        mov     ecx, [ecx + VMM_BASE + PV_FRAME_TABLE + FRAME_type_info]
        test    ecx, PGT_COUNT
        jz      .invalid
        and     ecx, PGT_TYPE
        cmp     ecx, PGT_L1
        jne     .invalid
        call    pv_window
        mov     ecx, esi
        shr     ecx, 12
        and     ecx, TABLE_ENTRIES - 1
        lea     edi, [edi + ecx * 4]
        call    pv_change_l1
        jc      .invalid
        xor     eax, eax
        END_PATH mapping_update
        ret
.invalid:
        mov     eax, -EINVAL
        END_PATH mapping_update
        ret

; -- mmuext_op ----------------------------------------------------------------------------------------------------------

; mmuext_op(operations, count, done, domain): what remains beside single entries.
OPERATION_COMMAND equ 0
OPERATION_FRAME   equ 4
OPERATION_BYTES   equ 12

        align 16
pv_mmuext_op:
        BEGIN
        mov     esi, [ebx]
        mov     ecx, [ebx + 4]
        cmp     word [ebx + 12], DOMID_SELF
        jne     refuse
        test    ecx, 0xF0000000
        jnz     refuse
        push    ebx
        lea     eax, [ecx + ecx * 2]
        lea     eax, [esi + eax * 4]
        cmp     eax, esi
        jb      .fault
        cmp     eax, [edx + DOMAIN_virt_start]
        ja      .fault
        mov     [pv_end], eax
        test    ecx, ecx
        jz      .done
.next:
        mov     ecx, [esi + OPERATION_COMMAND]
        mov     eax, [esi + OPERATION_FRAME]
        cmp     ecx, N_OPERATIONS
        jae     .missing
        call    [pv_operations + ecx * 4]
        jc      .invalid
        test    dword [XEN(asked)], ASK_SCHEDULE
        jnz     refuse
        add     esi, OPERATION_BYTES
        cmp     esi, [pv_end]
        jb      .next
.done:
        xor     eax, eax
.answer:
        pop     ebx
        push    eax
        mov     ecx, [ebx + 8]
        test    ecx, ecx
        jz      .unwanted
        lea     eax, [ecx + 4]
        cmp     eax, [edx + DOMAIN_virt_start]
        ja      refuse
        mov     eax, esi
        sub     eax, [ebx]
        push    edx
        push    ecx
        xor     edx, edx
        mov     ecx, OPERATION_BYTES
        div     ecx
        pop     ecx
        pop     edx
        mov     [ecx], eax
.unwanted:
        pop     eax
        END_PATH extended_operation
        ret
.missing:
        mov     eax, -ENOSYS
        jmp     .answer
.invalid:
        mov     eax, -EINVAL
        jmp     .answer
.fault:
        pop     ebx
        mov     eax, -EFAULT
        END_PATH extended_operation
        ret

; Each operation: EAX its frame, EDX the domain; carry: refused. ESI is kept.
        align 16
pv_pin_l1:
        mov     ecx, PGT_L1
        jmp     pv_pin
pv_pin_l2:
        mov     ecx, PGT_L2
pv_pin:
        push    ecx
        call    pv_get_page
        pop     ecx
        jc      .refused
        push    eax
        call    pv_begin_type
        pop     eax
        jc      .no_type
        jz      .look
.typed:
        test    dword [edi + FRAME_type_info], PGT_PINNED
        jnz     .twice
        or      dword [edi + FRAME_type_info], PGT_PINNED
        clc
        ret
.look:
        cmp     ecx, PGT_L1
        jne     refuse
        call    pv_validate_l1
        jnc     .typed
        mov     dword [edi + FRAME_type_info], 0
        jmp     .no_type
.twice:
        call    pv_drop_type
.no_type:
        call    pv_put_page
.refused:
        stc
        ret

        align 16
pv_unpin:
        call    pv_get_page
        jc      .refused
        test    dword [edi + FRAME_type_info], PGT_PINNED
        jz      .not_pinned
        and     dword [edi + FRAME_type_info], ~PGT_PINNED
        call    pv_drop_type
        jz      .last
.released:
        call    pv_put_page                     ; the pin's reference, and that of this look
        call    pv_put_page
        clc
        ret
.last:
        mov     ecx, [edi + FRAME_type_info]
        and     ecx, PGT_TYPE
        cmp     ecx, PGT_L1
        jne     refuse
        and     dword [edi + FRAME_type_info], ~PGT_VALIDATED
        call    pv_release_l1
        jmp     .released
.not_pinned:
        call    pv_put_page
.refused:
        stc
        ret

; A new base of the page tables, up to the load of CR3.
        align 16
pv_new_base:
        BEGIN
        cmp     eax, [edx + DOMAIN_base_frame]
        je      .same
        mov     ecx, PGT_L2
        push    ecx
        call    pv_get_page
        pop     ecx
        jc      .refused
        push    eax
        call    pv_begin_type
        pop     eax
        jc      .no_type
        jz      refuse                          ; to be looked into
        xchg    eax, [edx + DOMAIN_base_frame]
        mov     edi, eax
        shl     edi, FRAME_SHIFT
        add     edi, VMM_BASE + PV_FRAME_TABLE
        call    pv_drop_type
        jz      refuse                          ; the old tables go
        call    pv_put_page
.same:
        clc
        END_PATH base_switch
        ret
.no_type:
        call    pv_put_page
.refused:
        stc
        END_PATH base_switch
        ret

; A flush of the TLB, or of one address: all that is left of it is the processor's.
pv_flush_tlb:
        clc
        ret

pv_refuse_operation:
        jmp     refuse

; -- descriptors --------------------------------------------------------------------------------------------------------

DESCRIPTOR_DPL   equ 3 << 13
DESCRIPTOR_DPL_1 equ 1 << 13

; EAX, ECX a descriptor -> as it may stand in a table of the domain at EDX; carry: refused. Uses ESI, EDI.
        align 16
pv_check_descriptor:
        test    ecx, HIGH_PRESENT
        jz      .harmless
        test    ecx, DESCRIPTOR_DPL
        jnz     .outer
        or      ecx, DESCRIPTOR_DPL_1
.outer:
        test    ecx, HIGH_SEGMENT
        jz      refuse                          ; a gate
        push    ebx
        mov     edi, ecx
        and     edi, HIGH_CODE | HIGH_EXPAND
        cmp     edi, HIGH_EXPAND
        je      refuse                          ; offsets from the limit up
        ; 1. The base, and the bytes of the limit.
        mov     ebx, eax
        mov     esi, ecx
        shr     ebx, 16
        and     esi, 0xFF
        mov     edi, ecx
        shl     esi, 16
        and     edi, 0xFF000000
        or      ebx, esi
        or      ebx, edi
        movzx   edi, ax
        mov     esi, ecx
        and     esi, 0xF0000
        or      edi, esi
        inc     edi
        test    ecx, HIGH_G
        jz      .bytes
        shl     edi, 12
.bytes:
        ; 2. It ends before what is the VMM's, or its limit is cut off there.
        mov     esi, [edx + DOMAIN_segment_limit]
        shl     esi, 12
        cmp     ebx, esi
        jae     .refused
        add     esi, 0x1000
        test    edi, edi
        jz      .cut
        add     edi, ebx
        jc      .cut
        cmp     edi, esi
        jbe     .fits
.cut:
        test    ecx, HIGH_G
        jz      .refused
        sub     esi, ebx
        shr     esi, 12
        dec     esi
        mov     edi, esi
        and     eax, 0xFFFF0000
        and     edi, 0xFFFF
        and     ecx, ~0xF0000
        and     esi, 0xF0000
        or      eax, edi
        or      ecx, esi
.fits:
        pop     ebx
.harmless:
        clc
        ret
.refused:
        pop     ebx
        stc
        ret

; update_descriptor(machine address, descriptor), 64 bits each.
        align 16
pv_update_descriptor:
        BEGIN
        mov     eax, [ebx + 8]
        mov     ecx, [ebx + 12]
        call    pv_check_descriptor
        jc      .invalid
        push    ecx
        push    eax
        mov     eax, [ebx]
        test    al, 7
        jnz     .no_place
        cmp     dword [ebx + 4], 0
        jne     .no_place
        shr     eax, 12
        call    pv_get_page
        jc      .no_place
        mov     esi, edi
        push    eax
        mov     eax, [edi + FRAME_type_info]
        mov     ecx, PGT_WRITABLE
        and     eax, PGT_TYPE
        cmp     eax, PGT_SEG_DESC
        jne     .kind
        mov     ecx, eax
.kind:
        call    pv_begin_type
        pop     eax
        jc      .no_type
        jz      refuse                          ; all of the page is to be looked at
        call    pv_window
        mov     ecx, [ebx]
        and     ecx, 0xFFF
        add     edi, ecx
        pop     eax
        pop     ecx
        mov     [edi], eax
        mov     [edi + 4], ecx
        mov     edi, esi
        call    pv_drop_type
        call    pv_put_page
        xor     eax, eax
        END_PATH update_descriptor
        ret
.no_type:
        call    pv_put_page
.no_place:
        add     esp, 8
.invalid:
        mov     eax, -EINVAL
        END_PATH update_descriptor
        ret

; set_gdt(list of frames, entries). The TLB is flushed behind it, by the processor.
PER_DOMAIN_MAPPED equ PTE_P | PTE_RW | PTE_A | PTE_D
GDT_PAGE_ENTRIES  equ 512

        align 16
pv_set_gdt:
        BEGIN
        mov     esi, [ebx]
        mov     ecx, [ebx + 4]
        cmp     ecx, FIRST_RESERVED_GDT_ENTRY
        ja      .invalid
        push    ebp
        mov     ebp, ecx
        add     ecx, GDT_PAGE_ENTRIES - 1
        shr     ecx, 9
        lea     eax, [esi + ecx * 4]
        cmp     eax, [edx + DOMAIN_virt_start]
        ja      refuse
        ; 1. The new frames, as pages of descriptors.
        xor     ebx, ebx
        push    ecx
.get:
        cmp     ebx, [esp]
        jae     .got
        mov     eax, [esi + ebx * 4]
        mov     [pv_frames + ebx * 4], eax
        call    pv_get_page
        jc      refuse                          ; those that were got are to be given back
        mov     ecx, PGT_SEG_DESC
        call    pv_begin_type
        jc      refuse
        jz      refuse                          ; all of the page is to be looked at
        inc     ebx
        jmp     .get
.got:
        pop     ecx
        mov     [edx + DOMAIN_gdt_entries], ebp
        ; 2. They take the place of the old ones, and are mapped where the processor finds them.
        mov     esi, [edx + DOMAIN_domid]
        imul    esi, PV_PER_DOMAIN_TABLE_BYTES
        xor     ebx, ebx
.map:
        xor     eax, eax
        cmp     ebx, ecx
        jae     .none
        mov     eax, [pv_frames + ebx * 4]
.none:
        mov     edi, [edx + DOMAIN_gdt_frames + ebx * 4]
        mov     [edx + DOMAIN_gdt_frames + ebx * 4], eax
        mov     [pv_frames + ebx * 4], edi
        test    eax, eax
        jz      .entry
        shl     eax, 12
        or      eax, PER_DOMAIN_MAPPED
.entry:
        mov     [esi + VMM_BASE + PV_PER_DOMAIN_TABLES + ebx * 4], eax
        inc     ebx
        cmp     ebx, FIRST_RESERVED_GDT_PAGE
        jb      .map
        ; 3. The old ones are given back.
        xor     ebx, ebx
.put:
        mov     eax, [pv_frames + ebx * 4]
        test    eax, eax
        jz      .put_back
        mov     edi, eax
        shl     edi, FRAME_SHIFT
        add     edi, VMM_BASE + PV_FRAME_TABLE
        call    pv_drop_type
        call    pv_put_page
.put_back:
        inc     ebx
        cmp     ebx, FIRST_RESERVED_GDT_PAGE
        jb      .put
        pop     ebp
        xor     eax, eax
        END_PATH set_gdt
        ret
.invalid:
        mov     eax, -EINVAL
        END_PATH set_gdt
        ret

; -- memory_op ----------------------------------------------------------------------------------------------------------

; memory_op(command, reservation): frames that the domain gives back, one by one, or gets. What it gets is cleared by the
; processor's string instruction, whose time is its own.
RESERVATION_EXTENTS equ 0
RESERVATION_COUNT   equ 4
RESERVATION_ORDER   equ 8
RESERVATION_DOMAIN  equ 16
RESERVATION_BYTES   equ 20

        align 16
pv_memory_op:
        BEGIN
        mov     eax, [ebx]
        mov     esi, [ebx + 4]
        cmp     eax, XENMEM_populate_physmap
        je      .reservation
        cmp     eax, XENMEM_decrease_reservation
        jne     refuse
.reservation:
        lea     ecx, [esi + RESERVATION_BYTES]
        cmp     ecx, [edx + DOMAIN_virt_start]
        ja      .fault
        cmp     word [esi + RESERVATION_DOMAIN], DOMID_SELF
        jne     refuse
        cmp     dword [esi + RESERVATION_ORDER], 0
        jne     refuse
        mov     ecx, [esi + RESERVATION_COUNT]
        mov     esi, [esi + RESERVATION_EXTENTS]
        test    ecx, 0xF0000000
        jnz     refuse
        push    eax
        lea     eax, [esi + ecx * 4]
        cmp     eax, [edx + DOMAIN_virt_start]
        ja      refuse
        mov     [pv_end], eax
        pop     eax
        xor     ebx, ebx
        test    ecx, ecx
        jz      .done
        cmp     eax, XENMEM_decrease_reservation
        jne     .populate
.next:
        mov     eax, [esi]
        call    pv_get_page
        jc      .done
        test    dword [edi + FRAME_type_info], PGT_PINNED
        jnz     refuse
        mov     ecx, [edi + FRAME_count_info]
        test    ecx, PGC_ALLOCATED
        jz      .mapped
        and     ecx, ~PGC_ALLOCATED
        mov     [edi + FRAME_count_info], ecx
        call    pv_put_page
.mapped:
        mov     dword [VMM_BASE + PV_MACHPHYS + eax * 4], INVALID_M2P_ENTRY
        call    pv_put_page
        inc     ebx
        add     esi, 4
        cmp     esi, [pv_end]
        jb      .next
.done:
        mov     eax, ebx
        END_PATH memory_op
        ret
.populate:
        mov     eax, [XEN(free_frames)]
        dec     eax
        js      .done
        mov     ecx, [edx + DOMAIN_total_frames]
        cmp     ecx, [edx + DOMAIN_max_frames]
        jae     .done
        mov     edi, eax
        shl     edi, FRAME_SHIFT
        add     edi, VMM_BASE + PV_FRAME_TABLE
        inc     ecx
        mov     [edx + DOMAIN_total_frames], ecx
        mov     ecx, [edi + FRAME_type_info]
        mov     [XEN(free_frames)], ecx
        mov     ecx, [XEN(flush_clock)]
        inc     ecx
        cmp     [edi + FRAME_flush], ecx
        je      refuse                          ; stale translations
        mov     ecx, [edx + DOMAIN_domid]
        mov     [edi + FRAME_owner], ecx
        mov     dword [edi + FRAME_count_info], PGC_ALLOCATED | 1
        mov     dword [edi + FRAME_type_info], 0
        mov     ecx, [esi]
        mov     [VMM_BASE + PV_MACHPHYS + eax * 4], ecx
        mov     [esi], eax
        inc     ebx
        add     esi, 4
        cmp     esi, [pv_end]
        jb      .populate
        jmp     .done
.fault:
        mov     eax, -EFAULT
        END_PATH memory_op
        ret

; -- the assist of writable page tables -----------------------------------------------------------------------------------

; A write of the guest's kernel has met a page table of its own, which it maps read-only: the instruction is performed as an
; update of the entry. MOV and XCHG of a doubleword, in the flat segment of the interface.
PREFIX_LOCK      equ 0xF0
WRITE_REFUSED    equ 3          ; the error code

        align 16
pv_writable_table:
        BEGIN
        ; 1. The entry, by the page that was written to.
        mov     edx, [pv_domain]
        test    dword [edx + DOMAIN_assists], 1 << VMASST_TYPE_writable_pagetables
        jz      refuse
        cmp     dword [ebp + P_ERROR], WRITE_REFUSED
        jne     refuse
        mov     esi, cr2
        call    pv_l1_place
        jc      refuse
        mov     eax, [edi]
        mov     ecx, eax
        and     ecx, PTE_P | PTE_RW
        cmp     ecx, PTE_P
        jne     refuse
        shr     eax, 12
        mov     edi, eax
        shl     edi, FRAME_SHIFT
        add     edi, VMM_BASE + PV_FRAME_TABLE
        mov     ecx, [edi + FRAME_owner]
        cmp     ecx, [edx + DOMAIN_domid]
        jne     refuse
        mov     ecx, [edi + FRAME_type_info]
        test    ecx, PGT_COUNT
        jz      refuse
        and     ecx, PGT_TYPE
        cmp     ecx, PGT_L1
        jne     refuse
        test    esi, 3
        jnz     refuse
        push    eax
        push    esi
        ; 2. The instruction -> ESI behind it, EBX the value, ECX the register that gets the old one, or -1.
        cmp     dword [ebp + P_CS], FLAT_RING1_CS
        jne     refuse
        mov     esi, [ebp + P_EIP]
        lea     eax, [esi + 15]
        cmp     eax, [edx + DOMAIN_virt_start]
        ja      refuse
        movzx   eax, byte [esi]
        cmp     al, PREFIX_LOCK
        jne     .opcode
        inc     esi
        movzx   eax, byte [esi]
.opcode:
        inc     esi
        mov     ecx, -1
        cmp     al, 0x89
        je      .register
        cmp     al, 0x87
        je      .exchange
        cmp     al, 0xC7
        je      .immediate
        cmp     al, 0xA3
        jne     refuse
        mov     ebx, [ebp + P_EAX]
        add     esi, 4
        jmp     .update
.immediate:
        call    pv_operand
        test    eax, 7 << 3
        jnz     refuse
        mov     ebx, [esi]
        add     esi, 4
        mov     ecx, -1
        jmp     .update
.exchange:
        call    pv_operand
        shr     eax, 3
        and     eax, 7
        movzx   ecx, byte [pv_register_slots + eax]
        mov     ebx, [ebp + ecx]
        jmp     .update
.register:
        call    pv_operand
        shr     eax, 3
        and     eax, 7
        movzx   ecx, byte [pv_register_slots + eax]
        mov     ebx, [ebp + ecx]
        mov     ecx, -1
.update:
        ; 3. The entry is updated.
        mov     [pv_left], ecx
        pop     edi
        pop     eax
        push    edi
        call    pv_window
        pop     ecx
        and     ecx, 0xFFC
        add     edi, ecx
        push    dword [edi]
        call    pv_change_l1
        pop     eax
        jc      refuse                          ; its own page fault then
        mov     ecx, [pv_left]
        test    ecx, ecx
        js      .done
        mov     [ebp + ecx], eax
.done:
        mov     [ebp + P_EIP], esi
        and     dword [ebp + P_EFLAGS], ~EFLAGS_RF
        END_PATH writable_table
        ret

; ESI at ModRM of an operand in memory -> EAX ModRM, ESI behind the operand. Uses ECX.
        align 16
pv_operand:
        movzx   eax, byte [esi]
        inc     esi
        mov     ecx, eax
        shr     ecx, 6
        cmp     ecx, 3
        je      refuse
        push    eax
        and     eax, 7
        cmp     eax, 4
        jne     .no_index
        movzx   eax, byte [esi]
        inc     esi
        and     eax, 7
        cmp     eax, 5
        jne     .displacement
        test    ecx, ecx
        jnz     .displacement
        add     esi, 4
        jmp     .end
.no_index:
        cmp     eax, 5
        jne     .displacement
        test    ecx, ecx
        jnz     .displacement
        mov     ecx, 2
.displacement:
        cmp     ecx, 1
        jb      .end
        je      .byte
        add     esi, 3
.byte:
        inc     esi
.end:
        pop     eax
        ret

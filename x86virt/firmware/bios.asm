; A small BIOS for a PC: the program that the processor runs first, and the services that boot sectors call by INT.
;
; Written from the public descriptions of these interfaces: IBM's technical references for the PC/AT and PS/2, the lists of
; interrupts that grew from them, T13's ATA and EDD documents, the PCI BIOS and MultiProcessor specifications. Read
; reset.asm first (what happens from power-on to the boot sector), then service.asm (how every INT is answered).
;
; The image is 64 KB of 16-bit code. The machine shows it twice: at 0xF0000, where real mode can reach it as segment 0xF000,
; and below 4 GB, where the processor fetches its first instruction (0xFFFFFFF0). It is read-only: what changes lies in
; the BIOS data area at 0x400 and in one kilobyte at the end of base memory (data.inc).

        bits    16
        cpu     686
        org     0

%include "ports.inc"
%include "data.inc"
%include "frame.inc"

        section .text
%include "reset.asm"
%include "service.asm"
%include "protected.asm"
%include "memory.asm"
%include "system.asm"
%include "interrupts.asm"
%include "timer.asm"
%include "clock.asm"
%include "video.asm"
%include "video_text.asm"
%include "keyboard.asm"
%include "keyboard_buffer.asm"
%include "keyboard_table.asm"
%include "serial.asm"
%include "ata.asm"
%include "disk.asm"
%include "disk_extensions.asm"
%include "pci.asm"
%include "pci_setup.asm"
%include "power.asm"
%include "option_rom.asm"
%include "mp_table.asm"
%include "boot.asm"
%include "entries.asm"

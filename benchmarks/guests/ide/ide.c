/* The IDE controller of a PC: ports 0x1F0 to 0x1F7 and 0x3F6, and the bus master of its PCI function.

   Source: ATA/ATAPI-6 (T13/1410D), sections 7 to 9; Intel 82371SB data sheet, bus master IDE. */
#include "ide.h"

#include "ports.h"

#define IDE_DATA 0x1F0
#define IDE_COUNT 0x1F2
#define IDE_LOW 0x1F3
#define IDE_MID 0x1F4
#define IDE_HIGH 0x1F5
#define IDE_DEVICE 0x1F6
#define IDE_STATUS 0x1F7
#define IDE_ALTERNATE 0x3F6
#define DEVICE_LBA 0xE0         /* device 0, addressed by LBA */
#define STATUS_ERR 0x01
#define STATUS_DRQ 0x08
#define STATUS_DF 0x20
#define STATUS_BSY 0x80
#define CONTROL_NIEN 0x02
#define CONTROL_SRST 0x04
#define READ_DMA 0xC8
#define WRITE_DMA 0xCA
#define FLUSH_CACHE 0xE7
#define IDENTIFY_DEVICE 0xEC
#define IDENTIFY_WORDS 256
#define IDENTIFY_SECTORS 60     /* two words: what LBA can address */

#define PCI_ADDRESS 0xCF8
#define PCI_DATA 0xCFC
#define PCI_FUNCTIONS 256       /* of bus 0 */
#define PCI_COMMAND 0x04
#define PCI_CLASS 0x08
#define PCI_BASE_4 0x20
#define PCI_CLASS_IDE 0x0101
#define COMMAND_IO_AND_MASTER 5

#define MASTER_COMMAND IDE_MASTER_PORTS
#define MASTER_STATUS (IDE_MASTER_PORTS + 2)
#define MASTER_TABLE (IDE_MASTER_PORTS + 4)
#define MASTER_START 1
#define MASTER_TO_MEMORY 8
#define MASTER_ERROR 2
#define MASTER_INTERRUPT 4
#define END_OF_TABLE 0x80000000u

static struct {
    uint32_t address, bytes_and_end;
} table[IDE_MOST_REGIONS] __attribute__((aligned(512)));    /* within one page, which may lie anywhere */
static uint32_t table_address;
static uint8_t direction;
static int by_dma;

static uint32_t pci_read(unsigned function, unsigned offset)
{
    out32(PCI_ADDRESS, 0x80000000u | function << 8 | offset);
    return in32(PCI_DATA);
}

static void pci_write(unsigned function, unsigned offset, uint32_t value)
{
    out32(PCI_ADDRESS, 0x80000000u | function << 8 | offset);
    out32(PCI_DATA, value);
}

/* Give the bus master its ports; 0 if there is none. */
static int start_master(void)
{
    for (unsigned function = 0; function < PCI_FUNCTIONS; function++)
        if (pci_read(function, PCI_CLASS) >> 16 == PCI_CLASS_IDE) {
            pci_write(function, PCI_BASE_4, IDE_MASTER_PORTS);
            pci_write(function, PCI_COMMAND, COMMAND_IO_AND_MASTER);
            return 1;
        }
    return 0;
}

static uint8_t wait_while_busy(void)
{
    uint8_t status;

    do
        status = in8(IDE_ALTERNATE);
    while (status & STATUS_BSY);
    return status;
}

/* Sectors of device 0, by IDENTIFY DEVICE; 0 if it does not answer. */
static uint32_t identify(void)
{
    uint32_t sectors = 0;

    out8(IDE_ALTERNATE, CONTROL_NIEN);
    out8(IDE_DEVICE, DEVICE_LBA);
    out8(IDE_STATUS, IDENTIFY_DEVICE);
    if ((wait_while_busy() & (STATUS_DRQ | STATUS_ERR)) == STATUS_DRQ)
        for (unsigned word = 0; word < IDENTIFY_WORDS; word++) {
            const uint32_t value = in16(IDE_DATA);

            if (word == IDENTIFY_SECTORS)
                sectors |= value;
            if (word == IDENTIFY_SECTORS + 1)
                sectors |= value << 16;
        }
    in8(IDE_STATUS);
    out8(IDE_ALTERNATE, 0);
    return sectors;
}

uint32_t ide_start(uint32_t (*machine_address)(const void *page))
{
    if (in8(IDE_STATUS) & (STATUS_BSY | STATUS_DF))
        return 0;               /* no disk: nothing but the cable answers */
    table_address = machine_address(table);
    return start_master() ? identify() : 0;
}

static void fill_table(const struct ide_region *regions, unsigned count)
{
    for (unsigned number = 0; number < count; number++) {
        table[number].address = regions[number].address;
        table[number].bytes_and_end = regions[number].bytes;
    }
    table[count - 1].bytes_and_end |= END_OF_TABLE;
    __asm__ volatile("" : : : "memory");
}

static uint32_t sectors_of(const struct ide_region *regions, unsigned count)
{
    uint32_t bytes = 0;

    for (unsigned number = 0; number < count; number++)
        bytes += regions[number].bytes;
    return bytes / SECTOR_BYTES;
}

static void prepare_master(enum ide_command command, const struct ide_region *regions, unsigned count)
{
    fill_table(regions, count);
    direction = command == IDE_READ ? MASTER_TO_MEMORY : 0;
    out32(MASTER_TABLE, table_address);
    out8(MASTER_COMMAND, direction);
    out8(MASTER_STATUS, MASTER_ERROR | MASTER_INTERRUPT);
}

void ide_begin(enum ide_command command, uint32_t sector, const struct ide_region *regions, unsigned count)
{
    by_dma = command != IDE_FLUSH;
    if (by_dma) {
        prepare_master(command, regions, count);
        out8(IDE_COUNT, (uint8_t)sectors_of(regions, count));
        out8(IDE_LOW, (uint8_t)sector);
        out8(IDE_MID, (uint8_t)(sector >> 8));
        out8(IDE_HIGH, (uint8_t)(sector >> 16));
    }
    out8(IDE_DEVICE, DEVICE_LBA | (sector >> 24 & 0xF));
    out8(IDE_STATUS, command == IDE_READ ? READ_DMA : command == IDE_WRITE ? WRITE_DMA : FLUSH_CACHE);
    if (by_dma)
        out8(MASTER_COMMAND, direction | MASTER_START);
}

static void reset(void)
{
    out8(IDE_ALTERNATE, CONTROL_SRST);
    out8(IDE_ALTERNATE, 0);
    wait_while_busy();
}

int ide_interrupt(void)
{
    uint8_t after = 0, status;

    if (by_dma) {
        after = in8(MASTER_STATUS);
        if (!(after & MASTER_INTERRUPT))
            return 0;
        out8(MASTER_COMMAND, direction);
    }
    status = in8(IDE_STATUS);   /* takes the interrupt back */
    if (status & STATUS_BSY)
        return 0;
    if (!(status & (STATUS_ERR | STATUS_DF)) && !(after & MASTER_ERROR))
        return 1;
    reset();
    return -1;
}

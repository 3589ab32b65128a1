/* GDT, IDT and TSS. */
#ifndef DESCRIPTORS_H
#define DESCRIPTORS_H

#include "../include/sizes.h"

void descriptors_load(void);
void descriptors_open_sysenter(void);

#endif

/* The back end of the guest's console. */
#ifndef CONSOLE_BACK_H
#define CONSOLE_BACK_H

void console_back_start(void);
void console_back_serve(void);

#endif

/* xenstore for the guest, over the ring of its store page. */
#ifndef STORE_SERVICE_H
#define STORE_SERVICE_H

void store_start(void);
void store_serve(void);

#endif

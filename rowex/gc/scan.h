/*
 * scan.h -- the exclusive first opener of a file that was not closed cleanly:
 * mark from the root, sweep the extents, rebuild the free lists.
 */
#ifndef ROWEX_SCAN_H
#define ROWEX_SCAN_H

#include "../native/core.h"

struct rx_scan_report {
    uint64_t nodes, leaves, free_cells, free_bytes, reclaimed_cells, brk;
};
/*
 * Every bit of the file is checked before it is used.  With fix != NULL-arena
 * semantics: rx_scan_repair() zeroes lock words, turns unreachable cells into free
 * ones (coalesced), fills arena 0 and hdr->brk, hdr->base_count.
 * rx_scan_verify() changes nothing: calls fault(ctx, offset, text) for each fault:
 * used by check() behind the gate.  RX_E_CORRUPT / RX_E_INTERRUPTED.
 */
int rx_scan_repair(struct rx_db *db, struct rx_map *map, struct rx_scan_report *report);
typedef void (*rx_fault_fn)(void *ctx, uint64_t offset, const char *text);
int rx_scan_verify(struct rx_db *db, struct rx_map *map, rx_fault_fn fault, void *ctx, struct rx_scan_report *report);

#endif

/* GCC's unwinder asks glibc which program headers an address belongs to. musl has only the list of them. */
#define _GNU_SOURCE
#include <link.h>
#include <pthread.h>
#include <string.h>

/* The unwinder names these weakly, which takes nothing from a static library, and then calls address 0 at the first
   panic. */
__attribute__((used)) static void *const taken[] = {
    (void *)pthread_once,       (void *)pthread_mutex_lock,  (void *)pthread_mutex_unlock,
    (void *)pthread_key_create, (void *)pthread_getspecific, (void *)pthread_setspecific,
};

/* As glibc declares it for x86-64. */
struct dl_find_object {
    unsigned long long flags;
    void *start, *end, *link_map, *eh_frame;
    unsigned long long reserved[7];
};

struct search {
    ElfW(Addr) address;
    struct dl_find_object *found;
};

static int look(struct dl_phdr_info *object, size_t size, void *data) {
    struct search *search = data;
    void *eh_frame = 0;
    int is_here = 0;
    (void)size;
    for (int at = 0; at < object->dlpi_phnum; at++) {
        const ElfW(Phdr) *header = &object->dlpi_phdr[at];
        ElfW(Addr) start = object->dlpi_addr + header->p_vaddr;
        if (header->p_type == PT_LOAD && search->address - start < header->p_memsz) {
            is_here = 1;
            search->found->start = (void *)start;
            search->found->end = (void *)(start + header->p_memsz);
        }
        if (header->p_type == PT_GNU_EH_FRAME) eh_frame = (void *)start;
    }
    search->found->eh_frame = eh_frame;
    return is_here && eh_frame;
}

int _dl_find_object(void *address, struct dl_find_object *found) {
    struct search search = {(ElfW(Addr))address, found};
    memset(found, 0, sizeof *found);
    return dl_iterate_phdr(look, &search) ? 0 : -1;
}

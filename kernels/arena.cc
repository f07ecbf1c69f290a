#include "arena.h"

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace voxrill {
namespace {

constexpr size_t kHuge = size_t{2} << 20, kChunk = size_t{64} << 20, kAlign = 64;

size_t rounded(size_t size, size_t to) { return (size + to - 1) / to * to; }

#if defined(__linux__)
std::shared_ptr<uint8_t> chunk_of(size_t size) {
  void* mapped = mmap(nullptr, size + kHuge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  const auto address = reinterpret_cast<uintptr_t>(mapped);
  auto* start = reinterpret_cast<uint8_t*>(rounded(address, kHuge));
  // Before the first write, or the kernel has given small pages already. The variable is that of devices/pages.py.
  if (!std::getenv("VOXRILL_NO_HUGE_PAGES")) madvise(start, size, MADV_HUGEPAGE);
  return {start, [mapped, size](uint8_t*) { munmap(mapped, size + kHuge); }};
}
#else
std::shared_ptr<uint8_t> chunk_of(size_t size) {
  const auto align = std::align_val_t{kAlign};
  return {static_cast<uint8_t*>(operator new(size, align)), [align](uint8_t* start) { operator delete(start, align); }};
}
#endif

}  // namespace

std::shared_ptr<uint8_t> allocate(size_t size) {
  static std::mutex mutex;
  static std::weak_ptr<uint8_t> current;  // weak: the last weight of a chunk takes it along
  static size_t used = 0;
  const std::lock_guard<std::mutex> lock(mutex);
  size = rounded(size, kAlign);
  std::shared_ptr<uint8_t> chunk = current.lock();
  if (!chunk || used + size > kChunk) {
    chunk = chunk_of(rounded(size > kChunk ? size : kChunk, kHuge));
    if (size <= kChunk) current = chunk, used = 0;
    if (size > kChunk) return chunk;  // alone; the current chunk stays open for smaller ones
  }
  uint8_t* start = chunk.get() + used;
  used += size;
  return {chunk, start};
}

bool on_huge_pages(const uint8_t* memory, size_t size) {
#if defined(__linux__)
  if (size < kHuge) return false;
  std::FILE* maps = std::fopen("/proc/self/smaps", "re");
  if (!maps) return false;
  const auto start = reinterpret_cast<uintptr_t>(memory), end = start + size;
  size_t huge = 0;
  bool inside = false;
  char line[512];
  while (std::fgets(line, sizeof line, maps)) {
    unsigned long from, to, kilobytes;
    if (std::sscanf(line, "%lx-%lx ", &from, &to) == 2) inside = from < end && start < to;
    if (inside && std::sscanf(line, "AnonHugePages: %lu kB", &kilobytes) == 1) huge += kilobytes << 10;
  }
  std::fclose(maps);
  return huge >= size / 2;
#else
  (void)memory, (void)size;
  return false;
#endif
}

}  // namespace voxrill

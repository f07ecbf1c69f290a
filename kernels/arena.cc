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
std::shared_ptr<Chunk> make_chunk(size_t size) {
  void* mapped = mmap(nullptr, size + kHuge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  auto chunk = std::make_shared<Chunk>();
  chunk->start = reinterpret_cast<uint8_t*>(rounded(reinterpret_cast<uintptr_t>(mapped), kHuge));
  chunk->mapped = {mapped, [size](void* start) { munmap(start, size + kHuge); }};
  // Before the first write, or the kernel has given small pages already. The variable is that of devices/pages.py.
  if (!std::getenv("VOXRILL_NO_HUGE_PAGES")) madvise(chunk->start, size, MADV_HUGEPAGE);
  return chunk;
}

// Bytes on huge pages, of the mappings that a stretch of memory touches.
size_t huge_bytes(uintptr_t start, uintptr_t end) {
  std::FILE* maps = std::fopen("/proc/self/smaps", "re");
  if (!maps) return 0;
  size_t huge = 0;
  bool inside = false;
  char line[512];
  while (std::fgets(line, sizeof line, maps)) {
    unsigned long from, to, kilobytes;
    if (std::sscanf(line, "%lx-%lx ", &from, &to) == 2) inside = from < end && start < to;
    if (inside && std::sscanf(line, "AnonHugePages: %lu kB", &kilobytes) == 1) huge += kilobytes << 10;
  }
  std::fclose(maps);
  return huge;
}
#else
std::shared_ptr<Chunk> make_chunk(size_t size) {
  auto chunk = std::make_shared<Chunk>();
  chunk->start = static_cast<uint8_t*>(operator new(size, std::align_val_t{kAlign}));
  chunk->mapped = {chunk->start, [](void* start) { operator delete(start, std::align_val_t{kAlign}); }};
  return chunk;
}

size_t huge_bytes(uintptr_t, uintptr_t) { return 0; }
#endif

}  // namespace

Piece allocate(size_t size) {
  static std::mutex mutex;
  static std::weak_ptr<Chunk> open;  // weak: the last piece of a chunk takes it along
  static size_t used = 0;
  size = rounded(size, kAlign);
  if (size > kChunk) {
    const std::shared_ptr<Chunk> own = make_chunk(rounded(size, kHuge));
    return {own, own->start};
  }
  const std::lock_guard<std::mutex> lock(mutex);
  std::shared_ptr<Chunk> chunk = open.lock();
  if (!chunk || used + size > kChunk) {
    open = chunk = make_chunk(kChunk);
    used = 0;
  }
  used += size;
  return {chunk, chunk->start + used - size};
}

bool on_huge_pages(const Piece& piece, size_t size) {
  std::atomic<int>& known = piece.chunk->huge;
  if (known < 0 && size >= kHuge) {
    const auto start = reinterpret_cast<uintptr_t>(piece.start);
    known = huge_bytes(start, start + size) >= size / 2;
  }
  return known > 0;
}

}  // namespace voxrill

// Memory for packed weights, on huge pages where the system gives them.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace voxrill {

struct Chunk {
  uint8_t* start;
  std::shared_ptr<void> mapped;
  std::atomic<int> huge{-1};  // not known yet, no, yes
};

// A piece of a chunk, aligned to 64 bytes. The chunk is given back when no piece of it is left.
struct Piece {
  std::shared_ptr<Chunk> chunk;
  uint8_t* start;
};

// Throws std::bad_alloc.
Piece allocate(size_t size);

// Whether most of the chunk lies on huge pages, judged by the first large piece for which this is asked. Ask after the
// piece was written. The first answer of a chunk takes up to 20 ms: the system counts all pages of the process.
bool on_huge_pages(const Piece& piece, size_t size);

}  // namespace voxrill

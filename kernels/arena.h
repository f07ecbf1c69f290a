// Memory for packed weights, on huge pages where the system gives them.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

namespace voxrill {

// `size` bytes, aligned to 64. They are given back when nothing points to their chunk. Throws std::bad_alloc.
std::shared_ptr<uint8_t> allocate(size_t size);

// Whether most of this memory lies on huge pages. Ask after it was written. It reads /proc, which takes milliseconds.
bool on_huge_pages(const uint8_t* memory, size_t size);

}  // namespace voxrill

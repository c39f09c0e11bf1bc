// A bit for each page of RAM, for who looks without a lock.
//
// Units    pages, counted along RAM.
// Threads  any. Relaxed: the bits order nothing; who goes by them has a lock for it, or asks for a count.
// Trust    page numbers have been checked.
// Errors   none.
#ifndef VMM_MEMORY_PAGE_BITS_H_
#define VMM_MEMORY_PAGE_BITS_H_

#include <atomic>
#include <cstdint>
#include <vector>

namespace vmm {

class PageBits final {
 public:
  static constexpr uint64_t kPagesPerWord = 64;

  explicit PageBits(uint64_t pages) : words_((pages + kPagesPerWord - 1) / kPagesPerWord) {}

  [[nodiscard]] bool Get(uint64_t page) const noexcept { return (Word(page) >> page % kPagesPerWord & 1) != 0; }
  // Of the page and its neighbours, from a multiple of kPagesPerWord on.
  [[nodiscard]] uint64_t Word(uint64_t page) const noexcept { return words_[page / kPagesPerWord].load(std::memory_order_relaxed); }
  void Set(uint64_t first, uint64_t pages, bool value) noexcept {
    for (uint64_t page = first; page < first + pages; ++page) {
      std::atomic<uint64_t>& word = words_[page / kPagesPerWord];
      const uint64_t bit = uint64_t{1} << page % kPagesPerWord;
      if (value) {
        word.fetch_or(bit, std::memory_order_relaxed);
      } else {
        word.fetch_and(~bit, std::memory_order_relaxed);
      }
    }
  }

 private:
  std::vector<std::atomic<uint64_t>> words_;
};

}  // namespace vmm

#endif  // VMM_MEMORY_PAGE_BITS_H_

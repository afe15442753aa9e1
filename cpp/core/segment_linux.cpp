#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <new>

#include "segment.hpp"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U  // Linux 6.3
#endif

namespace proclink {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

std::size_t page_size() { return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)); }

// In the file: page of words, data, page of words, data.
std::uint64_t file_size(std::uint64_t capacity) { return 2 * (page_size() + capacity); }

// In memory: page of words, data, the same data again, for each ring.
std::size_t mapped_size(std::uint64_t capacity, std::size_t page) {
  return static_cast<std::size_t>(2 * (page + 2 * capacity));
}

}  // namespace

std::shared_ptr<Segment> Segment::create(std::uint64_t capacity, Handle& handle,
                                         SystemError& error) {
  int fd = ::memfd_create("proclink", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
  if (fd < 0 && errno == EINVAL) fd = ::memfd_create("proclink", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) {
    error = {errno, "memfd_create"};
    return nullptr;
  }
  const auto size = static_cast<off_t>(file_size(capacity));
  // fallocate and not only ftruncate: a full machine is an error here and not a SIGBUS later.
  int failed;
  do {
    failed = ::ftruncate(fd, size) != 0 || ::fallocate(fd, 0, 0, size) != 0;
  } while (failed && errno == EINTR);
  if (failed) {
    error = {errno, "fallocate"};
  } else if (::fcntl(fd, F_ADD_SEALS, kSeals) != 0) {
    error = {errno, "fcntl(F_ADD_SEALS)"};
  } else if (auto segment = map(fd, capacity, error)) {
    handle = fd;
    return segment;
  }
  ::close(fd);
  return nullptr;
}

std::shared_ptr<Segment> Segment::attach(Handle handle, std::uint64_t capacity,
                                         SystemError& error) {
  const int seals = ::fcntl(handle, F_GET_SEALS);
  struct stat status {};
  if (seals < 0 || (seals & kSeals) != kSeals) {
    error = {EPERM, "fcntl(F_GET_SEALS)"};
    return nullptr;
  }
  constexpr std::uint64_t kStatBlock = 512;  // whatever the file system's own blocks
  if (::fstat(handle, &status) != 0 ||
      static_cast<std::uint64_t>(status.st_size) != file_size(capacity) ||
      static_cast<std::uint64_t>(status.st_blocks) * kStatBlock < file_size(capacity)) {
    error = {EINVAL, "fstat"};
    return nullptr;
  }
  return map(handle, capacity, error);
}

std::shared_ptr<Segment> Segment::map(Handle handle, std::uint64_t capacity, SystemError& error) {
  const std::size_t page = page_size();
  const std::size_t total = mapped_size(capacity, page);
  // Before there is anything that a failure would leave behind.
  std::shared_ptr<Segment> segment;
  try {
    segment.reset(new Segment(nullptr, capacity, page, ::getpid()));
  } catch (const std::bad_alloc&) {
    error = {ENOMEM, "malloc"};
    return nullptr;
  }
  void* reserved =
      ::mmap(nullptr, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) {
    error = {errno, "mmap"};
    return nullptr;
  }
  auto* base = static_cast<std::byte*>(reserved);
  segment->base_ = base;
  const auto place = [&](std::size_t where, std::uint64_t offset, std::uint64_t length) {
    return ::mmap(base + where, static_cast<std::size_t>(length), PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_FIXED | MAP_POPULATE, handle,
                  static_cast<off_t>(offset)) != MAP_FAILED;
  };
  for (int index = 0; index < 2; ++index) {
    const std::size_t where = index * (total / 2);
    const std::uint64_t offset = index * (page + capacity);
    if (!place(where, offset, page + capacity) ||
        !place(where + page + static_cast<std::size_t>(capacity), offset + page, capacity)) {
      error = {errno, "mmap"};
      return nullptr;
    }
  }
  // A forked child must not become a second producer.
  ::madvise(base, total, MADV_DONTFORK);
  return segment;
}

Segment::~Segment() {
  // In a forked child the memory is not there (MADV_DONTFORK), and something else may be.
  if (base_ != nullptr && ::getpid() == owner_) ::munmap(base_, mapped_size(capacity_, page_));
}

RingMemory Segment::ring(int index) const {
  std::byte* start = base_ + index * (mapped_size(capacity_, page_) / 2);
  return {reinterpret_cast<RingWords*>(start), start + page_, capacity_};
}

}  // namespace proclink

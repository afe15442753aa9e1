#include "segment.hpp"

#include <dirent.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <cerrno>
#include <csignal>

#include "ends.hpp"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

using namespace proclink;
using namespace proclink::test;

namespace {

constexpr std::uint64_t kCapacity = Segment::kSmallestRing;
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

int open_descriptors() {
  DIR* const directory = ::opendir("/proc/self/fd");
  CHECK(directory != nullptr);
  int count = 0;
  while (::readdir(directory) != nullptr) ++count;
  ::closedir(directory);
  return count;
}

struct NothingLeaks {
  const int before = open_descriptors();
  ~NothingLeaks() { CHECK(open_descriptors() == before); }
};

off_t size_for(std::uint64_t capacity) {
  return static_cast<off_t>(2 * (static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)) + capacity));
}

void accepts_powers_of_two() {
  CHECK(Segment::valid_capacity(Segment::kSmallestRing));
  CHECK(Segment::valid_capacity(Segment::kLargestRing));
  CHECK(!Segment::valid_capacity(0));
  CHECK(!Segment::valid_capacity(Segment::kSmallestRing / 2));
  CHECK(!Segment::valid_capacity(Segment::kLargestRing * 2));
  CHECK(!Segment::valid_capacity(Segment::kSmallestRing + 4096));
  CHECK(!Segment::valid_capacity(3 * Segment::kSmallestRing));
}

void both_sides_see_the_same() {
  const NothingLeaks check;
  SystemError error;
  Segment::Handle handle = -1;
  for (const std::uint64_t capacity : {kCapacity, 4 * kCapacity}) {
    const auto created = Segment::create(capacity, handle, error);
    CHECK(created && !error && handle >= 0);
    CHECK((::fcntl(handle, F_GETFD) & FD_CLOEXEC) != 0);
    const auto attached = Segment::attach(handle, capacity, error);
    CHECK(attached && !error);
    CHECK(::close(handle) == 0);  // attach leaves it to the caller; the memory stays
    for (int index = 0; index < 2; ++index) {
      const RingMemory here = created->ring(index);
      const RingMemory there = attached->ring(index);
      CHECK(here.capacity == capacity && there.capacity == capacity);
      CHECK(here.words != there.words);
      CHECK(reinterpret_cast<std::uintptr_t>(here.data) % 4096 == 0);
      CHECK(here.words->written.load() == 0 && here.words->read.load() == 0);
      CHECK(here.words->consumer_state.load() == kAwake);
      CHECK(here.words->producer_state.load() == kAwake);
      here.words->written.store(64 + index);
      CHECK(there.words->written.load() == std::uint64_t(64 + index));
      std::memcpy(here.data, text(index), capacity);
    }
    for (int index = 0; index < 2; ++index) {
      CHECK(is_text(attached->ring(index).data, capacity, index));
      CHECK(attached->ring(index).words->read.load() == 0);
    }
  }
}

// The compiler takes the two addresses of a byte for two bytes, and orders accesses as it likes.
void look_again() { std::atomic_signal_fence(std::memory_order_seq_cst); }

void each_ring_is_mapped_twice_in_a_row() {
  const auto segment = make_segment(kCapacity);
  std::memset(segment->ring(0).data, 0, kCapacity);
  std::memset(segment->ring(1).data, 0, kCapacity);
  for (int index = 0; index < 2; ++index) {
    const RingMemory ring = segment->ring(index);
    std::memcpy(ring.data + kCapacity - 100, text(7 + index), 300);
    look_again();
    CHECK(is_text(ring.data + kCapacity - 100, 300, 7 + index));
    CHECK(std::memcmp(ring.data, text(7 + index) + 100, 200) == 0);
    std::memcpy(ring.data + 1000, text(9 + index), 50);
    look_again();
    CHECK(is_text(ring.data + kCapacity + 1000, 50, 9 + index));
    CHECK(ring.at(kCapacity - 64) == ring.data + kCapacity - 64);
    CHECK(ring.at(5 * kCapacity + 64) == ring.data + 64);
    // The last byte of the second mapping is the last one of the ring.
    ring.data[2 * kCapacity - 1] = std::byte{77};
    look_again();
    CHECK(ring.data[kCapacity - 1] == std::byte{77});
  }
  CHECK(is_text(segment->ring(0).data + kCapacity - 100, 99, 7));  // ring 1 did not touch it
}

void stays_as_large_as_it_is() {
  SystemError error;
  Segment::Handle handle = -1;
  const auto segment = Segment::create(kCapacity, handle, error);
  CHECK(segment);
  CHECK(::ftruncate(handle, 4096) != 0 && errno == EPERM);
  CHECK(::ftruncate(handle, size_for(kCapacity) + 4096) != 0 && errno == EPERM);
  CHECK(::fcntl(handle, F_ADD_SEALS, F_SEAL_WRITE) != 0);
  CHECK(::fcntl(handle, F_GET_SEALS) != -1);
  CHECK((::fcntl(handle, F_GET_SEALS) & kSeals) == kSeals);
  ::close(handle);
}

void refuses(int handle, std::uint64_t capacity = kCapacity) {
  const NothingLeaks check;
  SystemError error;
  CHECK(Segment::attach(handle, capacity, error) == nullptr);
  CHECK(error);
  CHECK(error.call[0] != '\0');
}

int make_file(off_t size, int seals, bool allocated = true) {
  const int fd = ::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  CHECK(fd >= 0);
  CHECK(::ftruncate(fd, size) == 0);
  if (allocated && size > 0) CHECK(::fallocate(fd, 0, 0, size) == 0);
  if (seals != 0) CHECK(::fcntl(fd, F_ADD_SEALS, seals) == 0);
  return fd;
}

void refuses_memory_that_may_change_its_size() {
  for (const int seals : {0, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_SHRINK | F_SEAL_GROW, F_SEAL_SEAL,
                          F_SEAL_SHRINK | F_SEAL_SEAL, F_SEAL_GROW | F_SEAL_SEAL}) {
    const int fd = make_file(size_for(kCapacity), seals);
    refuses(fd);
    ::close(fd);
  }
  const int sealed = make_file(size_for(kCapacity), kSeals);
  SystemError error;
  CHECK(Segment::attach(sealed, kCapacity, error) != nullptr);
  CHECK(!error);
  ::close(sealed);
}

void refuses_memory_of_another_size() {
  for (const off_t difference : {off_t{-4096}, off_t{-1}, off_t{1}, off_t{4096}}) {
    const int fd = make_file(size_for(kCapacity) + difference, kSeals);
    refuses(fd);
    ::close(fd);
  }
  const int empty = make_file(0, kSeals);
  refuses(empty);
  ::close(empty);
  const int right = make_file(size_for(kCapacity), kSeals);
  refuses(right, 2 * kCapacity);
  refuses(right, Segment::kLargestRing);
  ::close(right);
}

// Mapping it would take the pages from this process's share.
void refuses_memory_that_is_not_allocated() {
  const int sparse = make_file(size_for(kCapacity), kSeals, false);
  refuses(sparse);
  CHECK(::fallocate(sparse, 0, 0, size_for(kCapacity) - 4096) == 0);
  refuses(sparse);
  CHECK(::fallocate(sparse, 0, 0, size_for(kCapacity)) == 0);
  SystemError error;
  CHECK(Segment::attach(sparse, kCapacity, error) != nullptr);
  ::close(sparse);
}

void refuses_memory_it_cannot_write() {
  const int fd = make_file(size_for(kCapacity), kSeals | F_SEAL_WRITE);
  refuses(fd);
  ::close(fd);
  const int future = ::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  CHECK(future >= 0 && ::ftruncate(future, size_for(kCapacity)) == 0);
  if (::fcntl(future, F_ADD_SEALS, kSeals | F_SEAL_FUTURE_WRITE) == 0) refuses(future);
  ::close(future);
}

void refuses_what_is_no_memory() {
  refuses(-1);
  int pipe_ends[2];
  CHECK(::pipe2(pipe_ends, O_CLOEXEC) == 0);
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  const int zero = ::open("/dev/zero", O_RDWR | O_CLOEXEC);
  const int directory = ::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const int counter = ::eventfd(0, EFD_CLOEXEC);
  const SocketPair sockets = make_sockets(Transport::local);
  for (const int fd :
       {pipe_ends[0], pipe_ends[1], null, zero, directory, counter, sockets.a, sockets.b}) {
    CHECK(fd >= 0);
    refuses(fd);
    ::close(fd);
  }
}

// --- failures of create
// ----------------------------------------------------------------------------

class Limit {
 public:
  Limit(decltype(RLIMIT_AS) resource, rlim_t most) : resource_(resource) {
    CHECK(::getrlimit(resource_, &before_) == 0);
    rlimit less = before_;
    less.rlim_cur = most;
    CHECK(::setrlimit(resource_, &less) == 0);
  }
  ~Limit() { CHECK(::setrlimit(resource_, &before_) == 0); }

 private:
  decltype(RLIMIT_AS) resource_;
  rlimit before_{};
};

void fails_without_leaving_anything() {
  std::signal(SIGXFSZ, SIG_IGN);
  const NothingLeaks check;
  Segment::Handle handle = -7;
  {
    SystemError error;
    const Limit limit(RLIMIT_FSIZE, 64 * 1024);
    CHECK(Segment::create(kCapacity, handle, error) == nullptr);
    CHECK(error.code == EFBIG);
  }
  {
    SystemError error;
    const Limit limit(RLIMIT_NOFILE, 0);
    CHECK(Segment::create(kCapacity, handle, error) == nullptr);
    CHECK(error.code == EMFILE);
  }
  if (!kSanitizer) {  // a sanitizer itself needs address space
    SystemError error;
    const Limit limit(RLIMIT_AS, 256 * 1024 * 1024);
    CHECK(Segment::create(std::uint64_t{1} << 27, handle, error) == nullptr);
    CHECK(error.code == ENOMEM);
  }
  CHECK(handle == -7);
  SystemError error;
  CHECK(Segment::create(kCapacity, handle, error) != nullptr);
  CHECK(!error);
  ::close(handle);
}

void leaves_nothing_mapped() {
  const auto mappings = [] {
    int count = 0;
    std::FILE* const maps = std::fopen("/proc/self/maps", "re");
    CHECK(maps != nullptr);
    char line[512];
    while (std::fgets(line, sizeof line, maps) != nullptr) {
      if (std::strstr(line, "memfd:") != nullptr) ++count;
    }
    std::fclose(maps);
    return count;
  };
  const int before = mappings();
  {
    const auto segment = make_segment(kCapacity);
    CHECK(mappings() > before);
  }
  CHECK(mappings() == before);
}

void a_forked_child_has_no_part_in_it() {
  auto segment = make_segment(kCapacity);
  int pipe_ends[2];
  CHECK(::pipe2(pipe_ends, O_CLOEXEC) == 0);
  const pid_t child = ::fork();
  CHECK(child >= 0);
  if (child == 0) {
    // The kernel reads for the child, so that nothing there is an error and not a crash.
    const RingMemory ring = segment->ring(0);
    for (const void* there :
         {static_cast<const void*>(ring.words), static_cast<const void*>(ring.data),
          static_cast<const void*>(segment->ring(1).data + kCapacity)}) {
      if (::write(pipe_ends[1], there, 1) != -1 || errno != EFAULT) ::_exit(1);
    }
    // What the child maps there is its own, and outlives the segment.
    void* const there = segment->ring(0).words;
    if (::mmap(there, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
               0) != there)
      ::_exit(2);
    segment.reset();
    if (::write(pipe_ends[1], there, 1) != 1) ::_exit(3);
    ::_exit(0);
  }
  int status = -1;
  CHECK(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  ::close(pipe_ends[0]);
  ::close(pipe_ends[1]);
}

}  // namespace

int main() {
  text(0);  // made before anything is counted
  accepts_powers_of_two();
  both_sides_see_the_same();
  each_ring_is_mapped_twice_in_a_row();
  stays_as_large_as_it_is();
  refuses_memory_that_may_change_its_size();
  refuses_memory_of_another_size();
  refuses_memory_that_is_not_allocated();
  refuses_memory_it_cannot_write();
  refuses_what_is_no_memory();
  fails_without_leaving_anything();
  leaves_nothing_mapped();
  a_forked_child_has_no_part_in_it();
}

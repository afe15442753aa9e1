// What a forked child may do with its copies of what other threads of its parent were using.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "check.hpp"
#include "direction_lock.hpp"
#include "ends.hpp"
#include "event_count.hpp"
#include "fork_guard.hpp"
#include "origin.hpp"

namespace {

using namespace proclink;
using namespace proclink::test;

// Ends with 0 when `body` comes to its end; by a signal when it waits for good.
template <class Body>
void in_child(Body body) {
  const pid_t child = ::fork();
  CHECK(child >= 0);
  if (child == 0) {
    ::alarm(20);
    body();
    ::_exit(0);
  }
  int status = -1;
  CHECK(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}

void an_origin_knows_its_process() {
  const Origin parents;
  CHECK(parents.is_here());
  in_child([&] {
    CHECK(!parents.is_here());
    const Origin own;
    CHECK(own.is_here());
  });
  CHECK(parents.is_here());
}

void a_copy_is_told_first() {
  std::atomic<int> told{0};
  const auto tell = [](void* of) { ++*static_cast<std::atomic<int>*>(of); };
  auto one = std::make_unique<ForkedCopy>(tell, &told);
  auto two = std::make_unique<ForkedCopy>(tell, &told);
  auto three = std::make_unique<ForkedCopy>(tell, &told);
  in_child([&] { CHECK(told == 3); });
  two.reset();
  in_child([&] { CHECK(told == 2); });
  one.reset();
  three.reset();
  in_child([&] { CHECK(told == 0); });
  CHECK(told == 0);
}

// A thread waits at it, and others lock its mutex all the time.
void an_event_count_is_of_no_use() {
  auto events = std::make_unique<EventCount>();
  std::atomic<bool> over{false};
  std::thread waiter([&] { events->wait(0, Deadline::never(), Interruption()); });
  std::vector<std::thread> others;
  for (int i = 0; i < 2; ++i) {
    others.emplace_back([&] {
      while (!over) CHECK_STATUS(events->wait(0, Deadline::immediate(), Interruption()),
                                 Status::timed_out);
    });
  }
  for (int i = rounds(200); i > 0; --i) {
    in_child([&] {
      events->count();
      events->advance();
      CHECK_STATUS(events->wait(0, Deadline::never(), Interruption()), Status::ok);
      events.reset();  // its end waits for nobody
    });
  }
  over = true;
  for (std::thread& other : others) other.join();
  events->advance();
  waiter.join();
}

void a_direction_is_closed() {
  auto lock = std::make_unique<DirectionLock>();
  std::atomic<bool> over{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      while (!over) {
        if (lock->take(Deadline::after(1'000'000), Interruption()) == Status::ok) lock->give();
      }
    });
  }
  for (int i = rounds(200); i > 0; --i) {
    const bool mine = lock->try_take();
    in_child([&] {
      if (mine) lock->give();
      lock->abandon();
      CHECK_STATUS(lock->take(Deadline::never(), Interruption()), Status::closed);
      lock->close();
      CHECK(!lock->end_lease());
      lock.reset();
    });
    if (mine) lock->give();
  }
  over = true;
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

int main() {
  an_origin_knows_its_process();
  a_copy_is_told_first();
  an_event_count_is_of_no_use();
  a_direction_is_closed();
}

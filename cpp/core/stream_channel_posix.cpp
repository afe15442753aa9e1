#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#if defined(__linux__)
#include <linux/sockios.h>
#endif

#include "fork_guard.hpp"
#include "poll_posix.hpp"
#include "stream_channel.hpp"

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0  // macOS: SO_NOSIGPIPE is set on the socket
#endif

namespace proclink {
namespace {

static_assert(std::endian::native == std::endian::little, "frame headers are little-endian");

constexpr std::uint64_t kLengthMask = (std::uint64_t{1} << 56) - 1;
constexpr std::byte kCommit{1};
constexpr std::byte kAbort{0};

// The peer sends no more. It never closes one direction alone, so it does not receive either; and a
// TCP sender in front of a closed window would hear of that only after a minute.
#ifdef POLLRDHUP
constexpr short kPeerEnded = POLLRDHUP;
#else
constexpr short kPeerEnded = 0;
#endif

#ifdef SIOCOUTQNSD
constexpr unsigned long kUnsentBytes = SIOCOUTQNSD;
#else
constexpr unsigned long kUnsentBytes = TIOCOUTQ;
#endif

// Of the system. It may be over soon, and the connection is what it was.
bool is_shortage(int error) { return error == ENOBUFS || error == ENOMEM; }

// How often to look where no event can tell.
constexpr Nanoseconds kLookWithoutBell = 10'000'000;

constexpr long kWouldBlock = -1;
constexpr long kInterrupted = -2;
constexpr long kFailed = -3;

}  // namespace

StreamChannel::StreamChannel(int socket, const Limits& limits, Interruption interruption) try
    : socket_(socket),
      limits_(limits),
      interruption_(interruption),
      scratch_(new std::byte[kBuffer]),
      send_spin_(limits.spin),
      buffer_(new std::byte[kBuffer]),
      receive_spin_(limits.spin) {
#ifdef SO_NOSIGPIPE
  const int on = 1;
  ::setsockopt(socket_, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#endif
} catch (...) {
  ::close(socket);  // it was taken over
  throw;
}

StreamChannel::~StreamChannel() { abandon(); }

// --- sending ---------------------------------------------------------------------------------------

std::size_t StreamChannel::make_frame(std::byte* where, FrameKind kind, const void* payload,
                                      std::size_t length) {
  const std::uint64_t header = header_of(length, kind);
  std::memcpy(where, &header, kFrameHeader);
  if (length > 0) std::memcpy(where + kFrameHeader, payload, length);
  where[kFrameHeader + length] = kCommit;
  return kFrameHeader + length + kCommitByte;
}

Status StreamChannel::send_failed(int error) {
  if (is_closed()) return Status::closed;
  if (is_shortage(error)) return no_resources(error);
  last_error_ = error;
  return usable() != Status::ok ? usable() : Status::peer_lost;
}

Status StreamChannel::how_it_ended() {
  {
    // Nobody waits for a message any more, so the turn comes soon. What has come is still there.
    if (is_closed()) return Status::closed;
    const std::lock_guard guard(handles_);
    if (is_closed()) return Status::closed;
    ::shutdown(socket_, SHUT_RD);
  }
  // Once in vain is enough.
  const bool vain = asked_in_vain_.load(std::memory_order_relaxed);
  const Status taken =
      receiving.take(vain ? Deadline::immediate() : for_those_inside(), interruption_);
  if (taken == Status::closed || taken == Status::interrupted) return taken;
  if (taken != Status::ok) {
    // This call interrupted one that receives, or that one is in a signal handler, which may wait for
    // this thread.
    asked_in_vain_.store(true, std::memory_order_relaxed);
    return Status::peer_lost;
  }
  const DirectionLock::Turn turn(receiving);
  const Status how = goodbye_is_waiting() ? Status::peer_closed : Status::peer_lost;
  ended_.store(how, std::memory_order_relaxed);
  return how;
}

bool StreamChannel::goodbye_is_waiting() const {
  if (goodbye_) return true;
  std::byte goodbye[kFrameHeader + kCommitByte];
  make_frame(goodbye, FrameKind::goodbye, nullptr, 0);
  const std::size_t buffered = end_ - start_;
  int waiting = 0;
  if (::ioctl(socket_, FIONREAD, &waiting) != 0 || waiting < 0) waiting = 0;
  const std::unique_ptr<std::byte[]> unread(
      new (std::nothrow) std::byte[buffered + static_cast<std::size_t>(waiting)]);
  if (!unread) return false;  // without memory nobody can tell
  std::copy_n(buffer_.get() + start_, buffered, unread.get());
  const ssize_t count =
      ::recv(socket_, unread.get() + buffered, static_cast<std::size_t>(waiting), MSG_PEEK | MSG_DONTWAIT);
  const std::size_t size = buffered + static_cast<std::size_t>(std::max<ssize_t>(count, 0));
  // Frame by frame: the end of a message may look the same.
  std::uint64_t at = message_begun_ ? length_ - copied_ + kCommitByte : 0;
  while (at < size && size - at >= sizeof goodbye) {
    const std::byte* const frame = unread.get() + at;
    if (std::equal(std::begin(goodbye), std::end(goodbye), frame)) return true;
    std::uint64_t header;
    std::memcpy(&header, frame, kFrameHeader);
    at += kFrameHeader + (header & kLengthMask) + kCommitByte;
  }
  return false;
}

Status StreamChannel::try_send(const void* message, std::size_t length) {
  if (length > limits_.max_send) return Status::too_large;
  if (usable() != Status::ok) [[unlikely]]
    return usable();
  if (length > kCopied || unsent_ > 0) return Status::timed_out;
  const std::size_t bytes = make_frame(scratch_.get(), FrameKind::data, message, length);
  const ssize_t sent = ::send(socket_, scratch_.get(), bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
  has_sent_.store(true, std::memory_order_relaxed);
  if (sent == static_cast<ssize_t>(bytes)) [[likely]]
    return Status::ok;
  if (sent >= 0) {
    begun_ = static_cast<std::size_t>(sent);
    return Status::timed_out;
  }
  if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) return Status::timed_out;
  return send_failed(errno);
}

Status StreamChannel::wait_to_send(Deadline deadline) {
  if (is_closed()) return Status::closed;
  if (deadline.passed()) return Status::timed_out;
  pollfd watched[2] = {{socket_, POLLOUT | kPeerEnded, 0}, {-1, POLLIN, 0}};
  const auto writable = [&] { return ::poll(watched, 1, 0) > 0; };
  const auto result = [&] {
    return (watched[0].revents & kPeerEnded) != 0 ? send_failed(EPIPE) : Status::ok;
  };
  const Nanoseconds budget = send_spin_.budget();
  if (budget > 0) {
    if (AdaptiveSpin::until(std::min(budget, deadline.remaining()), writable)) {
      send_spin_.ended_in_spin();
      return result();
    }
    if (interruption_.came()) return Status::interrupted;
  }
  const Nanoseconds start = now();
  watched[1].fd = closing_bell();
  // After the bell is there: partner is close(), which marks and then looks whether to ring.
  if (is_closed()) return Status::closed;
  Deadline next = interruption_.next_look(deadline);
  if (watched[1].fd < 0 && next.remaining() > kLookWithoutBell)
    next = Deadline::after(kLookWithoutBell);
  const int ready = ::poll(watched, 2, poll_timeout(next));
  if (ready <= 0) {
    if (ready < 0 && errno != EINTR) return no_resources(errno);
    if (ready == 0 && deadline.passed()) return Status::timed_out;
    return interruption_.came() ? Status::interrupted : Status::ok;
  }
  send_spin_.ended_in_sleep(now() - start);
  return result();  // an error shows in the next send
}

// The bell's handle, or -1 when the system gives none.
int StreamChannel::closing_bell() {
  if (!has_closing_bell_.load(std::memory_order_relaxed)) {
    const ForkGuard guard;
    SystemError error;
    Doorbell bell = Doorbell::create(error);
    if (error) return -1;
    closing_bell_ = std::move(bell);
    has_closing_bell_.store(true, std::memory_order_seq_cst);
  }
  return closing_bell_.handle();
}

Status StreamChannel::send(const void* message, std::size_t length, Deadline deadline) {
  if (is_closed()) {
    // try_send() may have begun it.
    if (const std::size_t begun = std::exchange(begun_, 0); begun > 0)
      give_up(header_of(length), begun, kFrameHeader + length + kCommitByte);
    return Status::closed;
  }
  if (length > limits_.max_send) return Status::too_large;
  if (usable() != Status::ok) return usable();
  if (begun_ == 0) {
    const Status status = settle(deadline);
    if (status != Status::ok) return status;
  }
  std::uint64_t header = header_of(length);
  std::byte commit = kCommit;
  const std::size_t total = kFrameHeader + length + kCommitByte;
  std::size_t sent = std::exchange(begun_, 0);
  has_sent_.store(true, std::memory_order_relaxed);
  for (;;) {
    iovec parts[3] = {{&header, kFrameHeader},
                      {const_cast<void*>(message), length},
                      {&commit, kCommitByte}};
    std::size_t skip = sent;
    for (iovec& part : parts) {
      const std::size_t step = std::min(skip, part.iov_len);
      part.iov_base = static_cast<std::byte*>(part.iov_base) + step;
      part.iov_len -= step;
      skip -= step;
    }
    msghdr frame{};
    frame.msg_iov = parts;
    frame.msg_iovlen = 3;
    const ssize_t count = ::sendmsg(socket_, &frame, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count >= 0) {
      sent += static_cast<std::size_t>(count);
      if (sent == total) return Status::ok;
    }
    Status status = Status::ok;
    if (count >= 0 || errno == EAGAIN || errno == EWOULDBLOCK) {
      status = wait_to_send(deadline);
    } else if (errno == EINTR) {
      if (interruption_.came()) status = Status::interrupted;
    } else {
      status = send_failed(errno);
    }
    if (status != Status::ok) {
      if (sent > 0) give_up(header, sent, total);
      return status;
    }
  }
}

// Writes bytes until all are in the socket.
Status StreamChannel::write(const std::byte* bytes, std::size_t length, Deadline deadline,
                            std::size_t& sent) {
  while (sent < length) {
    const ssize_t count =
        ::send(socket_, bytes + sent, length - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    Status status = Status::ok;
    if (count > 0) {
      sent += static_cast<std::size_t>(count);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      status = wait_to_send(deadline);
    } else if (errno == EINTR) {
      if (interruption_.came()) status = Status::interrupted;
    } else {
      return send_failed(errno);
    }
    if (status != Status::ok) return status;
  }
  return Status::ok;
}

void StreamChannel::give_up(std::uint64_t header, std::size_t sent, std::size_t total) {
  unsent_ = total - sent;
  unsent_header_ = sent < kFrameHeader ? kFrameHeader - sent : 0;
  std::memcpy(given_up_, &header, kFrameHeader);
}

// Fills up a frame that was given up: the rest of its header, which has to stay true, and zeros, of
// which the last is the commit byte.
Status StreamChannel::settle(Deadline deadline) {
  static constexpr std::byte kZeros[4096] = {};
  static_assert(kAbort == std::byte{0});
  while (unsent_ > 0) {
    std::size_t sent = 0;
    Status status;
    if (unsent_header_ > 0) {
      status = write(given_up_ + kFrameHeader - unsent_header_, unsent_header_, deadline, sent);
      unsent_header_ -= sent;
    } else {
      const auto zeros = static_cast<std::size_t>(std::min<std::uint64_t>(unsent_, sizeof kZeros));
      status = write(kZeros, zeros, deadline, sent);
    }
    unsent_ -= sent;
    if (status != Status::ok) return status;
  }
  return Status::ok;
}

Status StreamChannel::put(const void* message, std::size_t length) {
  if (batched_ == 0) frame_ends_.clear();
  if (length > limits_.max_send) return Status::too_large;
  constexpr std::size_t kMostFrames = kBuffer / (kFrameHeader + kCommitByte);
  // Here, where a failure leaves everything as it was.
  if (frame_ends_.capacity() < kMostFrames) frame_ends_.reserve(kMostFrames);
  if (length > kCopied || batched_ + kFrameHeader + length + kCommitByte > kBuffer)
    return Status::timed_out;
  batched_ += make_frame(scratch_.get() + batched_, FrameKind::data, message, length);
  frame_ends_.push_back(static_cast<std::uint32_t>(batched_));
  return Status::ok;
}

Status StreamChannel::flush(Deadline deadline) {
  Status status = is_closed() ? Status::closed : usable();
  if (batched_ == 0) {
    frame_ends_.clear();
    return status;
  }
  if (status == Status::ok) status = settle(deadline);
  std::size_t sent = 0;
  if (status == Status::ok) status = write(scratch_.get(), batched_, deadline, sent);
  const auto first_unsent = std::upper_bound(frame_ends_.begin(), frame_ends_.end(), sent);
  if (first_unsent != frame_ends_.end()) {
    const std::size_t frame_start =
        first_unsent == frame_ends_.begin() ? 0 : *std::prev(first_unsent);
    if (sent > frame_start) {
      std::uint64_t header;
      std::memcpy(&header, scratch_.get() + frame_start, kFrameHeader);
      give_up(header, sent - frame_start, *first_unsent - frame_start);
    }
  }
  frame_ends_.erase(frame_ends_.begin(), first_unsent);
  batched_ = 0;
  return status;
}

// --- receiving -------------------------------------------------------------------------------------

Status StreamChannel::ended(int error) {
  if (is_closed()) return Status::closed;
  last_error_ = error;
  const Status how = goodbye_ ? Status::peer_closed : Status::peer_lost;
  // From here on a send need not ask the socket: TCP would take one more message for nobody.
  ended_.store(how, std::memory_order_relaxed);
  return message_begun_ || start_ != end_ ? Status::truncated : how;
}

// After receive_now(), which gave `count`.
Status StreamChannel::receive_failed(long count) {
  const int error = count == 0 ? 0 : last_error_.load();
  return is_shortage(error) ? no_resources(error) : ended(error);
}

// Finds the next message in the buffer; timed_out when it takes more bytes to tell.
Status StreamChannel::parse() {
  if (usable() == Status::corrupt) return Status::corrupt;
  while (end_ - start_ >= kFrameHeader) {
    std::uint64_t header;
    std::memcpy(&header, buffer_.get() + start_, kFrameHeader);
    const auto kind = static_cast<FrameKind>(header >> 56);
    const std::uint64_t length = header & kLengthMask;
    const std::size_t behind = end_ - start_ - kFrameHeader;
    if (goodbye_) return corrupt("a frame behind the goodbye");
    if (kind == FrameKind::goodbye) {
      if (length != 0) return corrupt("a goodbye carries a payload");
      if (behind < kCommitByte) return Status::timed_out;
      start_ += kFrameHeader + kCommitByte;
      goodbye_ = true;
      continue;
    }
    if (kind != FrameKind::data) return corrupt("a frame is of an unknown kind");
    if (length > limits_.max_receive) return corrupt("a frame is longer than agreed");
    if (behind > length) {
      const std::byte mark = buffer_[start_ + kFrameHeader + static_cast<std::size_t>(length)];
      if (mark == kAbort) {
        start_ += kFrameHeader + static_cast<std::size_t>(length) + kCommitByte;
        continue;
      }
      if (mark != kCommit) return corrupt("a frame ends without a commit byte");
      complete_ = true;
    }
    start_ += kFrameHeader;
    length_ = length;
    copied_ = 0;
    message_begun_ = true;
    return Status::ok;
  }
  return Status::timed_out;
}

Status StreamChannel::begin_message() {
  const Status status = parse();
  // Without a spin the wait goes straight into one blocking call, as a bare socket loop would.
  if (status != Status::timed_out || !receive_spin_.enabled()) return status;
  const long count = receive_now(nullptr, 0, false);
  if (count > 0) return parse();
  return count == kWouldBlock || count == kInterrupted ? Status::timed_out : receive_failed(count);
}

// One system call: into `direct` first, if there is one, and the rest into the buffer.
// The count, 0 at the end, or one of the constants above.
long StreamChannel::receive_now(std::byte* direct, std::size_t length, bool block) {
  if (start_ == end_) {
    start_ = end_ = 0;
  } else if (start_ > 0) {
    std::memmove(buffer_.get(), buffer_.get() + start_, end_ - start_);
    end_ -= std::exchange(start_, 0);
  }
  const int flags = block ? 0 : MSG_DONTWAIT;
  ssize_t count;
  if (direct == nullptr) {
    count = ::recv(socket_, buffer_.get() + end_, kBuffer - end_, flags);
  } else {
    iovec parts[2] = {{direct, length}, {buffer_.get() + end_, kBuffer - end_}};
    msghdr frame{};
    frame.msg_iov = parts;
    frame.msg_iovlen = 2;
    count = ::recvmsg(socket_, &frame, flags);
  }
  if (count > 0) {
    const auto received = static_cast<std::size_t>(count);
    if (received > length) end_ += received - length;
    return count;
  }
  if (count == 0) return 0;
  if (errno == EAGAIN || errno == EWOULDBLOCK) return kWouldBlock;
  if (errno == EINTR) return kInterrupted;
  last_error_ = errno;
  return kFailed;
}

// Receives at least a byte. `direct_count`: how many of them went to `direct`.
Status StreamChannel::receive(std::byte* direct, std::size_t length, Deadline deadline,
                              std::size_t& direct_count) {
  long count = kWouldBlock;
  const auto arrived = [&] {
    count = receive_now(direct, length, false);
    return count != kWouldBlock;
  };
  bool slept = false;
  Nanoseconds start = 0;
  if (receive_spin_.enabled() || deadline.is_immediate()) {
    const Nanoseconds budget = receive_spin_.budget();
    if (!arrived() && budget > 0 && !deadline.is_immediate()) {
      const bool answer = has_sent_.exchange(false, std::memory_order_relaxed);
      if (AdaptiveSpin::until(std::min(budget, deadline.remaining()), arrived,
                              answer ? kPausesForAnswer : kPausesForMessage)) {
        receive_spin_.ended_in_spin();
      } else if (interruption_.came()) {
        return Status::interrupted;
      }
    }
    start = now();
  }
  while (count == kWouldBlock || count == kInterrupted) {
    if (is_closed()) return Status::closed;
    if (count == kInterrupted && interruption_.came()) return Status::interrupted;
    if (deadline.passed()) return Status::timed_out;
    slept = true;
    const Deadline next = interruption_.next_look(deadline);
    if (next.is_never()) {
      count = receive_now(direct, length, true);
    } else {
      pollfd watched{socket_, POLLIN, 0};
      const int ready = ::poll(&watched, 1, poll_timeout(next));
      if (ready < 0 && errno != EINTR) return no_resources(errno);
      count = ready > 0 || (ready == 0 && deadline.passed()) ? receive_now(direct, length, false)
                                                             : kInterrupted;
    }
  }
  if (slept && receive_spin_.enabled()) receive_spin_.ended_in_sleep(now() - start);
  if (count <= 0) return receive_failed(count);
  direct_count = std::min(static_cast<std::size_t>(count), length);
  return Status::ok;
}

Status StreamChannel::wait_message(Deadline deadline) {
  for (;;) {
    if (message_begun_) return Status::ok;
    Status status = parse();
    if (status != Status::timed_out) return status;
    std::size_t none = 0;
    status = receive(nullptr, 0, deadline, none);
    if (status != Status::ok) return status;
  }
}

Status StreamChannel::read_message(std::byte* destination, Deadline deadline, bool& restart) {
  complete_ = false;
  for (;;) {
    const auto from_buffer =
        static_cast<std::size_t>(std::min<std::uint64_t>(end_ - start_, length_ - copied_));
    if (from_buffer > 0) {
      std::memcpy(destination + copied_, buffer_.get() + start_, from_buffer);
      start_ += from_buffer;
      copied_ += from_buffer;
    }
    if (copied_ == length_ && start_ != end_) break;  // and the commit byte is there
    const auto missing = static_cast<std::size_t>(length_ - copied_);
    const bool direct = missing >= kDirect;
    std::size_t direct_count = 0;
    const Status status = receive(direct ? destination + copied_ : nullptr, direct ? missing : 0,
                                  deadline, direct_count);
    if (status != Status::ok) return status;
    copied_ += direct_count;
  }
  const std::byte mark = buffer_[start_++];
  if (mark != kCommit && mark != kAbort) return corrupt("a frame ends without a commit byte");
  message_begun_ = false;
  restart = mark == kAbort;
  return Status::ok;
}

// --- both ------------------------------------------------------------------------------------------

bool StreamChannel::peer_alive() {
  if (is_closed()) return false;  // before the mutex, which a forked child may have inherited locked
  const std::lock_guard guard(handles_);
  if (is_closed()) return false;
  pollfd watched{socket_, kPeerEnded, 0};
  if (::poll(&watched, 1, 0) == 0) return true;
  // A send need not ask the socket any more (see ended()).
  Status ok = Status::ok;
  ended_.compare_exchange_strong(ok, Status::peer_lost);
  return false;
}

Status StreamChannel::close(Deadline goodbye) {
  if (!mark_closed(goodbye)) return Status::ok;
  // Partner: wait_to_send().
  if (has_closing_bell_.load(std::memory_order_seq_cst)) closing_bell_.ring();
  return end_close(interruption_, for_those_inside());
}

void StreamChannel::finish_close() {
  // The call that leaves has its outcome already, so nothing interrupts this; and it waits for nobody:
  // what it cannot end is ended by those that are still inside.
  if (owes_close()) end_close(Interruption(), Deadline::immediate());
}

// Puts into the socket what it takes now of the frame that was given up and of the goodbye: ok when
// all of it is there, timed_out when there is no more room, peer_lost when there is nobody.
Status StreamChannel::write_goodbye() {
  // settle() cannot tell the last two apart, because this end is closed; the system's error can.
  const auto why = [] {
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? Status::timed_out
                                                                     : Status::peer_lost;
  };
  settle(Deadline::immediate());
  if (unsent_ > 0) return why();
  std::byte goodbye[kFrameHeader + kCommitByte];
  make_frame(goodbye, FrameKind::goodbye, nullptr, 0);
  const ssize_t count = ::send(socket_, goodbye + goodbye_sent_, sizeof goodbye - goodbye_sent_,
                               MSG_DONTWAIT | MSG_NOSIGNAL);
  if (count < 0) return why();
  goodbye_sent_ += static_cast<std::size_t>(count);
  return goodbye_sent_ == sizeof goodbye ? Status::ok : Status::timed_out;
}

// With the sending direction. A peer that waits for room itself before it reads gets that room: what
// comes is taken off the socket, as soon as no thread of this end receives any more, whose
// direction is taken then.
Status StreamChannel::say_goodbye(Interruption interruption, bool& receiving_taken) {
  if (std::exchange(goodbye_tried_, true)) return Status::ok;
  Status status = write_goodbye();
  if (status != Status::timed_out) return status;
  // The socket is full of what the peer has not read: a larger buffer has room for the goodbye. The
  // kernel doubles what it is given, up to a limit (socket(7)).
  int size = 0;
  socklen_t length = sizeof size;
  if (::getsockopt(socket_, SOL_SOCKET, SO_SNDBUF, &size, &length) == 0)
    ::setsockopt(socket_, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  bool writable = false;
  for (;;) {
    const std::uint64_t before = unsent_;
    status = write_goodbye();
    if (status != Status::timed_out) return status;
    // TCP calls a socket writable now and then that takes nothing.
    const bool stalled = writable && unsent_ == before;
    const Deadline deadline = closing_until();
    if (deadline.passed()) return Status::timed_out;
    receiving_taken = receiving_taken || receiving.take_to_close(Deadline::immediate());
    if (receiving_taken) discard_input();
    const int events = (stalled ? 0 : POLLOUT) | kPeerEnded | (receiving_taken ? POLLIN : 0);
    pollfd watched{socket_, static_cast<short>(events), 0};
    Deadline next = interruption.next_look(deadline);
    if ((stalled || !receiving_taken) && next.remaining() > kLookWithoutBell)
      next = Deadline::after(kLookWithoutBell);
    ::poll(&watched, 1, poll_timeout(next));
    if ((watched.revents & (kPeerEnded | POLLERR | POLLHUP)) != 0) return Status::peer_lost;
    writable = (watched.revents & POLLOUT) != 0;
    if (interruption.came()) return Status::interrupted;
  }
}

Status StreamChannel::end_close(Interruption interruption, Deadline patience) {
  if (!take_to_end(sending, patience)) return Status::ok;
  if (is_ended()) {
    sending.give();
    return Status::ok;
  }
  Status status = Status::ok;
  bool receiving_taken = false;
  if (usable() == Status::ok) status = say_goodbye(interruption, receiving_taken);
  // Wakes the threads that receive. Not before the goodbye: a Unix socket fails the peer's sends
  // with it. And no more on TCP, where the input is still to be taken off.
  const bool tcp = is_tcp();
  ::shutdown(socket_, tcp ? SHUT_RD : SHUT_RDWR);
  if (!receiving_taken && !take_to_end(receiving, patience)) {
    sending.give();
    return status;
  }
  if (tcp && status == Status::ok && usable() == Status::ok) status = linger(interruption);
  if (tcp && usable() != Status::ok) {
    // Or the system would keep megabytes for a peer that will never read them, for a minute.
    const ::linger drop{1, 0};
    ::setsockopt(socket_, SOL_SOCKET, SO_LINGER, &drop, sizeof drop);
  }
  ::shutdown(socket_, SHUT_RDWR);
  discard_input();
  {
    const std::lock_guard guard(handles_);
    release_handles();
  }
  note_end();
  receiving.give();
  sending.give();
  return status;
}

bool StreamChannel::is_tcp() const {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  return ::getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &length) == 0 &&
         address.ss_family != AF_UNIX;
}

// Closing a TCP socket with unread bytes in it, or one that more bytes come to, resets the
// connection (RFC 2525, 2.17), and the reset would overtake what this end sent last. So what comes
// is taken off until everything is on its way, as long as closing may take. (Not until it is
// acknowledged: that may take 40 ms after each last message.)
Status StreamChannel::linger(Interruption interruption) {
  const Deadline deadline = closing_until();
  int waiting = 0;
  while (::ioctl(socket_, kUnsentBytes, &waiting) == 0 && waiting > 0 && !deadline.passed()) {
    discard_input();
    pollfd watched{socket_, 0, 0};
    // No event tells that the queue is empty, but one does that there is nobody any more.
    if (::poll(&watched, 1, 1) > 0) return Status::ok;
    if (interruption.came()) return Status::interrupted;
  }
  return Status::ok;
}

void StreamChannel::discard_input() {
  constexpr int kReadsAtMost = 256;
  for (int reads = 0; reads < kReadsAtMost; ++reads) {
    if (::recv(socket_, buffer_.get(), kBuffer, MSG_DONTWAIT) <= 0) break;
  }
}

void StreamChannel::abandon() {
  mark_abandoned();
  release_handles();
}

void StreamChannel::release_handles() {
  if (socket_ >= 0) {
    const ForkGuard guard;
    ::close(std::exchange(socket_, -1));
  }
  closing_bell_.close();
}

}  // namespace proclink

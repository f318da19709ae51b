// ROS message_filters' ApproximateTime over seven streams.
//
//   sync_ros LOAD QUEUE REPEATS     LOAD: a line a message: arrival_ns row stamp_ns seq
//
// Prints CPU microseconds a message, a line a repeat ("us X"), then a line a set of the last repeat:
// "set MESSAGES_ARRIVED FRAME_STAMP FRAME_SEQ STAMP..." (stamps in the order of the table, without the camera).
#include <message_filters/sync_policies/approximate_time.h>
#include <message_filters/synchronizer.h>

#include <boost/make_shared.hpp>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <vector>

template <int Row>
struct Message {
  ros::Time stamp;
  long seq;
};

namespace ros::message_traits {
template <int Row>
struct TimeStamp<Message<Row>> {
  static ros::Time value(const Message<Row>& message) { return message.stamp; }
};
}  // namespace ros::message_traits

template <int Row>
using Event = ros::MessageEvent<Message<Row> const>;
using Policy = message_filters::sync_policies::ApproximateTime<Message<0>, Message<1>, Message<2>, Message<3>,
                                                               Message<4>, Message<5>, Message<6>>;
using Sync = message_filters::Synchronizer<Policy>;
template <int Row>
using Pointer = boost::shared_ptr<Message<Row> const>;

struct Line {
  long now_ns;
  int row;
  long stamp_ns;
  long seq;
  size_t index;  // among the messages of its row
};

struct Set {
  long arrived;
  long seq;
  long stamps_ns[7];
};

static long arrived = 0;
static std::vector<Set> sets;

template <int Row>
static long stamp_ns(const Pointer<Row>& message) {
  return static_cast<long>(message->stamp.toNSec());
}

static void on_set(const Pointer<0>& a, const Pointer<1>& b, const Pointer<2>& c, const Pointer<3>& d,
                   const Pointer<4>& e, const Pointer<5>& f, const Pointer<6>& g) {
  sets.push_back({arrived,
                  a->seq,
                  {stamp_ns<0>(a), stamp_ns<1>(b), stamp_ns<2>(c), stamp_ns<3>(d), stamp_ns<4>(e), stamp_ns<5>(f),
                   stamp_ns<6>(g)}});
}

template <int Row>
static std::vector<Pointer<Row>> messages;

template <int Row>
static void make(Line& line) {
  auto message = boost::make_shared<Message<Row>>();
  message->stamp.fromNSec(line.stamp_ns);
  message->seq = line.seq;
  line.index = messages<Row>.size();
  messages<Row>.push_back(message);
}

template <int Row>
static void add(Sync& sync, const Line& line) {
  const Pointer<Row>& message = messages<Row>[line.index];
  sync.add<Row>(Event<Row>(message, message->stamp));
}

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: sync_ros LOAD QUEUE REPEATS\n");
    return 2;
  }
  ros::Time::init();
  std::vector<Line> lines;
  std::ifstream file(argv[1]);
  using Make = void (*)(Line&);
  const Make makes[] = {make<0>, make<1>, make<2>, make<3>, make<4>, make<5>, make<6>};
  for (Line line; file >> line.now_ns >> line.row >> line.stamp_ns >> line.seq;) {
    makes[line.row](line);
    lines.push_back(line);
  }
  using Add = void (*)(Sync&, const Line&);
  const Add adds[] = {add<0>, add<1>, add<2>, add<3>, add<4>, add<5>, add<6>};
  for (int repeat = 0; repeat < std::atoi(argv[3]); ++repeat) {
    Sync sync{Policy(static_cast<uint32_t>(std::atoi(argv[2])))};
    sync.registerCallback(on_set);
    sets.clear();
    arrived = 0;
    const std::clock_t start = std::clock();
    for (const Line& line : lines) {
      ++arrived;
      adds[line.row](sync, line);
    }
    const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    std::printf("us %.6f\n", seconds * 1e6 / static_cast<double>(lines.size()));
  }
  for (const Set& set : sets) {
    std::printf("set %ld %ld %ld", set.arrived, set.stamps_ns[0], set.seq);
    for (int row = 1; row < 7; ++row) std::printf(" %ld", set.stamps_ns[row]);
    std::printf("\n");
  }
  return 0;
}

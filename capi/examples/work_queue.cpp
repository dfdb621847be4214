// A work queue: a producer enqueues jobs durably, and a named consumer does each once it is durable.
// A worker that starts again goes on after its last commit.
//
//     work_queue DIRECTORY

#include <chrono>
#include <iostream>
#include <string>
#include <thread>

#include <ringwal.hpp>

int main(int argc, char **argv) {
    if (argc != 2) {
        std::cerr << "usage: work_queue DIRECTORY\n";
        return 2;
    }
    try {
        ringwal::log log(argv[1], ringwal::options().segment_size(1 << 20));
        std::thread producer([&log] {
            for (auto job : {"resize image 7", "send mail 8", "index page 9"}) {
                log.append_durable(job);
            }
        });
        auto worker = log.attach("worker");
        int done = 0;
        while (done < 3) {
            auto job = worker.next(std::chrono::seconds(10));
            if (!job) break;
            std::cout << job->lsn << ": " << job->bytes() << '\n';
            worker.commit(job->lsn);
            done++;
        }
        producer.join();
        std::cout << done << " jobs done, " << worker.lag() << " left\n";
        log.close();
        try {
            log.append("too late");
        } catch (const ringwal::error &e) {
            return e.status() == RINGWAL_ERROR_CLOSED ? 0 : 1;
        }
        return 1;
    } catch (const ringwal::error &e) {
        std::cerr << ringwal_status_name(e.status()) << ": " << e.what() << '\n';
        return 1;
    }
}

// Package detector tells whether the local MySQL or MariaDB server is alive, and what role it can play. It only reports:
// core decides what follows from it.
//
// Four kinds of evidence, the fastest first:
//
//   - The process ends. The kernel says so through the process connector (initial network namespace and CAP_NET_ADMIN
//     only) and through the pidfds of some of the server's threads (Linux 6.9, everywhere and without any right). Where
//     there is neither, what the kernel shows of its main thread is read at a short interval. It is read before each probe in any
//     case, because a core dump shows there alone. The main thread need not run for that: the SIGKILL that the kernel sends to
//     all threads of a process that ends shows as pending before it has noticed. Last comes its pidfd. This is proof: the verdict falls at once. It
//     matters because a dying server keeps its sockets open until its memory is torn down, about 90 ms per GiB, or until
//     its core is written, and its pidfd is silent as long.
//   - The connection that is held open to the server ends. That may be an operator's KILL or wait_timeout, so it only
//     triggers one dial at once, and the dial decides: refused is proof, accepted is not.
//   - A probe, one SELECT with a hard deadline, is not answered. Several in a row are needed. The next one begins when the one before
//     has been judged, on a connection of its own.
//   - The server answers with an error that only a living server can give: wrong password, too many connections. That is
//     an alarm for the operator and not a dead server.
//
// What a silence does not say: that the server hangs, when the machine had no processor for it, or for us. So the time of a probe
// runs for each answer, and not for a login and all that is asked after it; what has come by the time we look is an answer; and for each
// answer the server has its time once more if our alarm was late (by more than half of the probe's interval) or if, when it rang, a
// thread of the server was ready to run and more threads were than there are processors (starved_linux.go). The latter matters because the
// daemon comes before the server by its nice value or scheduling class, and is punctual when the server starves. A silence that began late,
// or was noticed late after a punctual alarm, counts half instead. Nothing is excused twice: a server that says nothing has failed
// after Fall times ProbeTimeout, and in any case after twice that and by as much as we were late ourselves.
//
// Kernel messages are hints. After each the state itself is read again, except for a thread's exit by a signal, which
// always ends the whole process.
//
// The parts: judge is pure and holds the rise and fall counts; the loop in detector.go owns it and all timing, and knows
// the server through a small interface; server.go and session.go speak the protocol, dialect.go knows how the servers differ, and
// errors.go has the one switch that sorts errors. link_linux.go watches the connection, owner_linux.go finds the process
// and process_linux.go watches it.
//
// How the server's process is found: on a unix socket by SO_PEERCRED. On TCP by the inode of the listening socket, which
// is looked up among the open files of all processes; that needs root or CAP_SYS_PTRACE. Without it the server is asked
// for the path of its unix socket, and SO_PEERCRED of that one counts if the process lives in our network namespace.
// None of it works across process namespaces (a server in a container): then the exit is not seen, EOF and probes still
// are, and the log says so once.
//
// What a dying server has open is closed late, and until then clients are let in whom nobody serves: Config.PrepareHangUp is told of
// its listening sockets (closing in owner_linux.go), and what it has prepared is done before the verdict.
//
// An idle Detector costs about half a percent of a core at ten probes a second, nearly all of it for waking up: hence one
// goroutine for loop and probe, no blocking poll, and probes that come a little early when the process is awake anyway (ride.go).
package detector

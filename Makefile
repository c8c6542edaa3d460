# Remora: build, test, demonstrate. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
PKGS := ./...
TESTFLAGS ?= -race -count=1 -timeout 20m

.PHONY: help build deps test test-parts test-race test-seeds sim lint fmt demo gap promote matrix frozen faults soak mha bench bench-baseline bench-check bench-load microbench clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

build: ## build bin/remora, one static binary, and the laboratory's command
	mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/remora ./cmd/remora
	go build -o bin/remora-lab ./bench/cmd/remora-lab

deps: ## install what the tests and the demo need and this machine lacks (Debian, root)
	deploy/deps.sh

test: test-parts ## run all tests, those in network namespaces with real servers included
	# Alone, because these time real servers and daemons on the same cores. Those that time nothing run two at a time.
	REMORA_BIN=$(CURDIR)/bin/remora go test -count=1 -timeout 20m -parallel 2 -v ./bench/e2e 2>&1 | tee bin/e2e.log || { .ci/failed bin/e2e.log; exit 1; }

test-parts: deps build
	$(MAKE) --no-print-directory -j 2 -O test-race test-seeds

test-race: ## a part of test: all tests but those of whole laboratories, with the race detector
	go test $(TESTFLAGS) -p 2 $$(go list $(PKGS) | grep -v /bench/e2e)

# Without the race detector there is time for 100,000 seeds instead of 300. They need no clock but the processors, of which they get
# what nobody else wants (SCHED_IDLE): the other tests mostly wait for servers and timers.
test-seeds: ## a part of test: SEEDS simulated clusters (100,000), and Raft in virtual time
	chrt --idle 0 go test -count=1 -timeout 20m -v -run 'TestSeeds|TestOracles|TestAllRules' ./core/sim -seeds $(or $(SEEDS),100000)
	chrt --idle 0 go test -count=1 -timeout 20m -v -run TestVirtualSeeds ./consensus

sim: ## simulate SEEDS clusters (a million) beginning with seed FIRST, and print the figures
	go run ./core/sim/cmd/remora-sim -seeds $(or $(SEEDS),1000000) -first $(or $(FIRST),1)

lint: ## formatting, vet, static checks
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	if [ -n "$$unformatted" ]; then echo "gofmt would change: $$unformatted" >&2; exit 1; fi
	go vet $(PKGS)
	go vet -tags long ./bench/e2e
	go tool staticcheck $(PKGS)
	go mod tidy -diff

fmt: ## format all Go files
	gofmt -w $$(git ls-files '*.go')

demo: deps build ## three real MariaDB nodes, faults and a switchover before your eyes; KEEP=1 leaves it up
	bin/remora-lab demo --remora bin/remora $(if $(KEEP),--keep)

gap: deps build ## measure the client's gap, RUNS times each
	bin/remora-lab gap --remora bin/remora --runs $(or $(RUNS),10) --profile $(or $(PROFILE),lan) --check

promote: deps build ## what a writing client notices of switchovers and promotions, RUNS times each (10), on MariaDB and MySQL
	REMORA_BIN=$(CURDIR)/bin/remora go test -count=1 -timeout 60m -v ./bench/e2e -run 'TestGapUnderLoad' -args -runs $(or $(RUNS),10)

# What depends on the server's kind and version.
MATRIX := TestPromote$$|TestSemiSync|TestGapUnderLoad|TestReaders|TestMeasuredLag|TestSwitchover|TestFollow|Writer|TestPooled|TestCommandLine|TestMHASwitches|GTID
MARIADB ?= /var/cache/remora-mariadb

matrix: deps build ## what depends on the server, on each of SERVERS (mariadb-11.8, mariadb: the machine's own, mysql)
	failed=
	for server in $(or $(SERVERS),mariadb-11.8 mariadb mysql); do
		other=MySQL
		unset REMORA_MARIADB
		case $$server in
		mariadb-11.8) deploy/mysql.sh --mariadb $(MARIADB); export REMORA_MARIADB=$(MARIADB) ;;
		mariadb) ;;
		mysql) other=MariaDB ;;
		*) echo "there is no server $$server: mariadb-11.8, mariadb and mysql are there" >&2; exit 1 ;;
		esac
		echo "== $$server"
		go test -count=1 -timeout 20m -v ./detector -skip "/^$$other$$" || failed="$$failed $$server (detector)"
		REMORA_BIN=$(CURDIR)/bin/remora go test -tags long -count=1 -timeout 60m -v ./bench/e2e -run '$(MATRIX)' -skip "/^$$other$$" \
			|| failed="$$failed $$server (e2e)"
	done
	if [ -n "$$failed" ]; then echo "failed:$$failed" >&2; exit 1; fi

frozen: deps build ## kill and freeze the owner's daemon RUNS times each, and ask every node whether it still answers
	bin/remora-lab frozen --remora bin/remora --runs $(or $(RUNS),50) --profile $(or $(PROFILE),lan)

faults: deps build ## let everything go wrong (this machine's wall clock, too), REPEAT times (20), and ask every node whether it answers
	bin/remora-lab faults --remora bin/remora --repeat $(or $(REPEAT),20) --profile $(or $(PROFILE),lan)

soak: deps build ## the long runs: random faults for ten minutes with each of the seeds SEEDS, a million simulated clusters
	for seed in $(or $(SEEDS),1 2 3); do bin/remora-lab soak --remora bin/remora --seed $$seed --for $(or $(SPAN),10m); done
	go run ./core/sim/cmd/remora-sim -seeds 1000000

mha: deps build ## a real MHA fails over with Remora's hook and with a classical one: what each costs
	bin/remora-lab mha --remora bin/remora

RESULTS ?= bench/results

bench: build ## measure Remora beside keepalived, interleaved, RUNS times each, for LIMIT (3h) at most; figures, table and plots to RESULTS
	deploy/deps.sh bench
	$(if $(CONTINUE),,rm -f $(RESULTS)/runs.csv)
	# What was measured before an error, or before the time was up, is reported all the same.
	failed=0
	bin/remora-lab bench --remora bin/remora --runs $(or $(RUNS),15) --timeout $(or $(LIMIT),3h) --out $(RESULTS) $(if $(ALL),--all) \
		$(if $(SYSTEMS),--system $(SYSTEMS)) $(if $(ONLY),--only $(ONLY)) || failed=$$?
	if [ -s $(RESULTS)/runs.csv ]; then bin/remora-lab report --out $(RESULTS) || failed=$$?; fi
	exit $$failed

BASELINE ?= bench/baseline.json
RATIOS = deploy/deps.sh bench; rm -rf bin/bench-check; \
	bin/remora-lab bench --remora bin/remora --out bin/bench-check --system remora-lan,remora-fast,keepalived-10ms \
	--only mysqld-killed,planned,node-vanished,node-vanished-leader --runs

bench-baseline: build ## measure some scenarios RUNS times each (15) and record the ratios to keepalived in BASELINE
	$(RATIOS) $(or $(RUNS),15)
	bin/remora-lab report --out bin/bench-check --record --baseline $(BASELINE)

bench-check: build ## measure the same and some more RUNS times each (5), and fail if a ratio is worse than in BASELINE, or an aim is missed
	if [ ! -s $(BASELINE) ]; then echo "there is no $(BASELINE): record one with \"make bench-baseline\"" >&2; exit 1; fi
	$(RATIOS) $(or $(RUNS),5)
	# What is compared with nothing needs no keepalived.
	bin/remora-lab bench --remora bin/remora --out bin/bench-check --system remora-lan,remora-fast \
		--only mysqld-hung,daemon-frozen,parted --runs $(or $(RUNS),5)
	bin/remora-lab report --out bin/bench-check --baseline $(BASELINE)

bench-load: build ## keep all processors busy to 95 % and count moves of the address that nothing called for, for SPAN (10m)
	deploy/deps.sh bench
	bin/remora-lab load --remora bin/remora --out $(RESULTS) --for $(or $(SPAN),10m) $(if $(SYSTEMS),--system $(SYSTEMS)) $(if $(LOGS),--logs $(LOGS))

microbench: deps ## measure the parts one by one, COUNT times each (5), in a form that benchstat reads; also to RESULTS/microbench.txt
	deploy/deps.sh bench
	mkdir -p $(RESULTS)
	{
		go test -run '^$$' -bench . -benchtime 0.3s -count $(or $(COUNT),5) ./core ./core/agent ./consensus ./netio ./cmd/internal/trace
		go test -run '^$$' -bench . -benchtime 30x -count $(or $(COUNT),5) ./cmd/internal/daemon
	} | tee $(RESULTS)/microbench.txt

clean: ## remove what was built, and laboratories left behind
	if [ -x bin/remora-lab ]; then bin/remora-lab sweep; fi
	rm -rf bin

package detector

import (
	"testing"
	"time"

	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/gtid"
)

// How commits wait for replicas is told of a server that takes writes and has it switched on, in the words of each kind.
func TestSemiSyncIsTold(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		s := newDBServer(t, k, 1)
		word := "master"
		if k.flavour == gtid.MySQL {
			word = "source"
			s.exec("INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'")
		}
		for _, set := range []string{"wait_point = 'AFTER_SYNC'", "timeout = 12000", "enabled = ON"} {
			s.exec("SET GLOBAL rpl_semi_sync_" + word + "_" + set)
		}
		w := watch(t, Config{Address: s.address().String(), User: promoteUser, Policy: core.Promote, Timing: lan(t)})
		want := core.SemiSync{Waits: true, AfterSync: true, Alone: true, Acks: 1, Timeout: 12 * time.Second}
		told := func(what string, want core.SemiSync) {
			t.Helper()
			w.wait(10*time.Second, what, func(h core.Health) bool { return h.State == core.Healthy && h.SemiSync == want })
		}
		told("commits wait", want)
		s.exec("SET GLOBAL rpl_semi_sync_" + word + "_wait_point = 'AFTER_COMMIT'")
		want.AfterSync = false
		told("they wait too late", want)
		s.exec("SET GLOBAL read_only = 1")
		told("a server that is read-only has nothing to tell", core.SemiSync{})
		s.exec("SET GLOBAL read_only = 0")
		told("it is told again", want)
		s.exec("SET GLOBAL rpl_semi_sync_" + word + "_enabled = OFF")
		told("it is switched off", core.SemiSync{})
		if k.flavour == gtid.MySQL {
			from := w.count()
			s.exec("UNINSTALL PLUGIN rpl_semi_sync_source")
			w.wait(10*time.Second, "healthy without the plugin", func(h core.Health) bool { return h.State == core.Healthy })
			w.never(from, core.Failed)
		}
	})
}

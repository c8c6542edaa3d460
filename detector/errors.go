package detector

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"
)

// report is what one probe brought.
type report struct {
	finding finding
	reason  string
	// lost: an idle, proven connection had ended. It says nothing of the server; ask again at once.
	lost bool
	// broken: the connection ended under us.
	broken bool
	// refused: the server lives and does not let us in. Ask less often.
	refused bool
	facts   facts
	alarms  []string
	// late is how long after the end of its time a probe without an answer was given up, for the loop to know its own lateness.
	late time.Duration
	// again says why the server had the time for its answer twice, and empty that it had not.
	again string
}

// Error numbers that the code itself acts on.
const (
	errUnknownVariable = 1193
	errPrivilege       = 1227
)

// refusal knows the errors that only a living server sends to a client that it does not let in, and what to do.
func refusal(number uint16) (advice string, ok bool) {
	switch number {
	case 1040:
		return "too many connections: raise max_connections, or GRANT CONNECTION ADMIN (MySQL: CONNECTION_ADMIN) for the reserved slot", true
	case 1042, 1043:
		return "the server could not take our handshake: look at its error log, and at name resolution (skip_name_resolve)", true
	case 1044:
		return "access to the database is denied: the account needs none; look at its init_connect and default roles", true
	case 1045, 1698:
		return "access denied: wrong user or password; look at [mysql] user and password_file, and at the host part of the account", true
	case 1129:
		return "our host is blocked after many connection errors: run FLUSH HOSTS, and look for what breaks off connections", true
	case 1130:
		return "our host may not log in: create the account for this host", true
	case 1203, 1226:
		return "the account has reached its connection or resource limit: raise max_user_connections or the account's own limits", true
	case 1251, 1275:
		return "the account uses an authentication method that is too old: set its password again with a current plugin", true
	case 1820, 1862:
		return "the account's password has expired: set a new one", true
	case 3118, 4151:
		return "the account is locked: ALTER USER .. ACCOUNT UNLOCK", true
	}
	return "", false
}

// driverRefusal reports whether our own side of the login gave up. The server spoke to us, so it lives.
func driverRefusal(err error) bool {
	for _, e := range []error{mysql.ErrNativePassword, mysql.ErrOldPassword, mysql.ErrCleartextPassword, mysql.ErrUnknownPlugin,
		mysql.ErrNoTLS, mysql.ErrOldProtocol} {
		if errors.Is(err, e) {
			return true
		}
	}
	var cert *tls.CertificateVerificationError
	return errors.As(err, &cert)
}

// classify sorts what went wrong with a probe. It is the only place that does. below is the first error of the socket
// itself, which the driver hides, or nil.
func classify(err, below error, timeout time.Duration) report {
	var answer *mysql.MySQLError
	if errors.As(err, &answer) {
		return classifyAnswer(answer)
	}
	cause := err
	if below != nil {
		cause = below
	}
	var netErr net.Error
	switch {
	case errors.Is(cause, syscall.ECONNREFUSED):
		return report{finding: dead, reason: "connection refused: nobody listens there"}
	case errors.Is(cause, syscall.ENOENT):
		return report{finding: dead, reason: "the server's socket file does not exist"}
	case driverRefusal(err):
		return refused(fmt.Sprintf("login not possible: %v", err))
	case errors.Is(cause, os.ErrDeadlineExceeded), errors.Is(cause, context.DeadlineExceeded), errors.As(cause, &netErr) && netErr.Timeout(),
		errors.Is(cause, syscall.EAGAIN):
		return report{finding: silent, reason: fmt.Sprintf("no answer within %v", timeout)}
	case errors.Is(cause, os.ErrPermission):
		return report{finding: silent, reason: "permission denied for the server's socket: let the user that runs remora open it"}
	}
	return report{finding: silent, broken: true, reason: fmt.Sprintf("the connection broke off: %v", cause)}
}

func classifyAnswer(e *mysql.MySQLError) report {
	if advice, ok := refusal(e.Number); ok {
		return refused(fmt.Sprintf("error %d: %s", e.Number, advice))
	}
	return report{finding: silent, reason: fmt.Sprintf("the server answers with error %d: %s", e.Number, e.Message)}
}

func refused(alarm string) report {
	return report{finding: answered, refused: true, reason: "alive, but does not let us in", alarms: []string{alarm},
		facts: facts{lag: unknownLag}}
}
